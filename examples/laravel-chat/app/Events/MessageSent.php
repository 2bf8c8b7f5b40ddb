<?php

namespace App\Events;

use App\Events\Concerns\Retried;
use App\Http\Resources\MessageResource;
use App\Models\Message;
use Illuminate\Broadcasting\InteractsWithSockets;
use Illuminate\Broadcasting\PrivateChannel;
use Illuminate\Contracts\Broadcasting\ShouldBroadcast;
use Illuminate\Foundation\Events\Dispatchable;
use Illuminate\Queue\SerializesModels;

class MessageSent implements ShouldBroadcast
{
    use Dispatchable, InteractsWithSockets, Retried, SerializesModels;

    /**
     * The bytes that a message's content may have in the request to the WebSocket
     * server, where it is JSON inside of JSON (an emoji takes 14). Reverb and Pusher take
     * requests of 10 000 bytes, Resound larger ones; the rest is for the sender's name
     * and all around it.
     */
    public const MAX_CONTENT_BYTES = 6_000;

    public function __construct(public Message $message)
    {
    }

    public function broadcastOn(): PrivateChannel
    {
        return new PrivateChannel("chat.{$this->message->chat_id}");
    }

    public function broadcastAs(): string
    {
        return 'message.sent';
    }

    public function broadcastWith(): array
    {
        return ['message' => MessageResource::make($this->message)->resolve()];
    }

    public static function contentFits(string $content): bool
    {
        $once = json_encode($content, JSON_THROW_ON_ERROR);

        return strlen(json_encode($once, JSON_THROW_ON_ERROR)) <= self::MAX_CONTENT_BYTES;
    }
}
