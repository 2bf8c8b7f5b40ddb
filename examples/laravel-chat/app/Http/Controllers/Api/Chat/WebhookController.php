<?php

namespace App\Http\Controllers\Api\Chat;

use App\Models\User;
use Illuminate\Http\Request;
use Illuminate\Http\Response;
use Illuminate\Support\Carbon;
use Illuminate\Support\Facades\Broadcast;
use Pusher\PusherException;
use Pusher\Webhook;

/** Who came online and who went, as Resound tells it: see RESOUND_WEBHOOK_URL in .env. */
class WebhookController
{
    private const CHANNEL = 'presence-online';

    public function __invoke(Request $request): Response
    {
        $webhook = $this->verified($request);
        $at = Carbon::createFromTimestampMs($webhook->get_time_ms(), date_default_timezone_get());

        // They are in order: of everybody the last one counts.
        $events = collect($webhook->get_events())
            ->where('channel', self::CHANNEL)
            ->whereIn('name', ['member_added', 'member_removed'])
            ->keyBy('user_id');
        foreach ($events as $userId => $event) {
            User::noteSeen((int) $userId, $event->name === 'member_added', $at);
        }

        return response()->noContent();
    }

    /** Only Resound and this application know the secret that it is signed with. */
    private function verified(Request $request): Webhook
    {
        $headers = [
            'X-Pusher-Key' => $request->header('X-Pusher-Key', ''),
            'X-Pusher-Signature' => $request->header('X-Pusher-Signature', ''),
        ];

        try {
            return Broadcast::connection('reverb')->getPusher()->webhook($headers, $request->getContent());
        } catch (PusherException) {
            abort(401, 'The webhook is not signed with the secret of this application.');
        }
    }
}
