<?php

namespace App\Events;

use App\Events\Concerns\Retried;
use App\Models\Chat;
use Illuminate\Broadcasting\InteractsWithSockets;
use Illuminate\Broadcasting\PrivateChannel;
use Illuminate\Contracts\Broadcasting\ShouldBroadcast;
use Illuminate\Foundation\Events\Dispatchable;
use Illuminate\Queue\SerializesModels;

/** These people take part in a chat from now on. */
class ChatStarted implements ShouldBroadcast
{
    use Dispatchable, InteractsWithSockets, Retried, SerializesModels;

    /** @param  int[]  $userIds */
    public function __construct(public Chat $chat, public array $userIds)
    {
    }

    /** @return PrivateChannel[] */
    public function broadcastOn(): array
    {
        return array_map(fn (int $id) => new PrivateChannel("App.Models.User.{$id}"), $this->userIds);
    }

    public function broadcastAs(): string
    {
        return 'chat.started';
    }

    public function broadcastWith(): array
    {
        return ['chat_id' => $this->chat->id];
    }
}
