<?php

namespace App\Http\Controllers\Api\Chat;

use App\Events\ChatStarted;
use App\Events\MessageSent;
use App\Http\Requests\Chat\StoreChatRequest;
use App\Http\Resources\ChatResource;
use App\Http\Resources\UserResource;
use App\Jobs\EndSubscriptions;
use App\Models\Chat;
use App\Models\User;
use Illuminate\Http\Request;
use Illuminate\Http\Resources\Json\AnonymousResourceCollection;
use Illuminate\Http\Response;
use Illuminate\Support\Facades\DB;
use Throwable;

/** Who can be written to, and who comes into a group and leaves it. */
class ParticipantController
{
    private const MOST_PEOPLE = 200;

    public function index(Request $request): AnonymousResourceCollection
    {
        return UserResource::collection($request->user()->contacts()->limit(self::MOST_PEOPLE)->get());
    }

    public function store(Request $request, Chat $chat): ChatResource
    {
        $me = $request->user();
        $asked = $request->validate([
            'user_ids' => ['required', 'array', 'max:50'],
            'user_ids.*' => ['bail', 'integer', 'distinct', StoreChatRequest::contactOf($me)],
        ]);

        DB::transaction(function () use ($me, $chat, $asked) {
            $added = $chat->admit($asked['user_ids']);
            if ($added) {
                $names = User::query()->whereKey($added)->orderBy('name')->pluck('name')->join(', ', ' and ');
                $this->announce($chat, "{$me->name} added {$names}");
                broadcast(new ChatStarted($chat, $added))->toOthers();
            }
        });

        return ChatResource::make($me->rooms()->findOrFail($chat->id));
    }

    /** Leaves the group. */
    public function leave(Request $request, Chat $chat): Response
    {
        return $this->destroy($request, $chat, $request->user());
    }

    /** Removes somebody from the group, who hears nothing more of it once this has answered. */
    public function destroy(Request $request, Chat $chat, User $user): Response
    {
        $me = $request->user();

        DB::transaction(function () use ($me, $chat, $user) {
            if ($chat->release($user)) {
                $this->announce($chat, $user->is($me) ? "{$me->name} left" : "{$me->name} removed {$user->name}");
            }
        });
        $this->endSubscriptions($chat, $user);

        return response()->noContent();
    }

    /** Not in the queue, where it would be behind others; if it fails now, the worker tries again. */
    private function endSubscriptions(Chat $chat, User $user): void
    {
        try {
            EndSubscriptions::dispatchSync($chat, $user);
        } catch (Throwable $e) {
            report($e);
            EndSubscriptions::dispatch($chat, $user);
        }
    }

    /** A system message: nobody sent it, and whoever caused it sees it, too. */
    private function announce(Chat $chat, string $content): void
    {
        broadcast(new MessageSent($chat->messages()->create(['content' => $content])));
    }
}
