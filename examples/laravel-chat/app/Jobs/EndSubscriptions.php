<?php

namespace App\Jobs;

use App\Events\Concerns\Retried;
use App\Models\Chat;
use App\Models\User;
use Illuminate\Bus\Queueable;
use Illuminate\Contracts\Queue\ShouldQueue;
use Illuminate\Foundation\Bus\Dispatchable;
use Illuminate\Queue\InteractsWithQueue;
use Illuminate\Queue\SerializesModels;
use Illuminate\Support\Facades\Broadcast;

/**
 * Takes somebody who has left a chat out of its channels. The WebSocket server asks only
 * when a subscription begins, and would go on sending.
 */
class EndSubscriptions implements ShouldQueue
{
    use Dispatchable, InteractsWithQueue, Queueable, Retried, SerializesModels;

    public function __construct(public Chat $chat, public User $user)
    {
    }

    public function handle(): void
    {
        // A try that comes late may find somebody who is back.
        if ($this->chat->participants()->whereKey($this->user->id)->exists()) {
            return;
        }

        $pusher = Broadcast::connection('reverb')->getPusher();
        foreach (["private-chat.{$this->chat->id}", "presence-chat.{$this->chat->id}"] as $channel) {
            $pusher->post("/channels/{$channel}/users/{$this->user->id}/unsubscribe", '{}');
        }
    }
}
