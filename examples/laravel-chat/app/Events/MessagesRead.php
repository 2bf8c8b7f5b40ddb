<?php

namespace App\Events;

use App\Events\Concerns\Retried;
use App\Models\Chat;
use App\Models\Message;
use App\Models\User;
use Illuminate\Broadcasting\InteractsWithSockets;
use Illuminate\Broadcasting\PrivateChannel;
use Illuminate\Contracts\Broadcasting\ShouldBroadcast;
use Illuminate\Foundation\Events\Dispatchable;
use Illuminate\Queue\SerializesModels;

/** Somebody has read a chat up to a message. */
class MessagesRead implements ShouldBroadcast
{
    use Dispatchable, InteractsWithSockets, Retried, SerializesModels;

    public function __construct(public Chat $chat, public User $reader, public Message $upTo)
    {
    }

    public function broadcastOn(): PrivateChannel
    {
        return new PrivateChannel("chat.{$this->chat->id}");
    }

    public function broadcastAs(): string
    {
        return 'messages.read';
    }

    public function broadcastWith(): array
    {
        return [
            'chat_id' => $this->chat->id,
            'user' => ['id' => $this->reader->id, 'name' => $this->reader->name],
            'last_read_at' => $this->upTo->created_at,
        ];
    }
}
