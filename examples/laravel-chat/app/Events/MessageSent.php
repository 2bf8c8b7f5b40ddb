<?php

namespace App\Events;

use App\Http\Resources\MessageResource;
use App\Models\Message;
use Illuminate\Broadcasting\InteractsWithSockets;
use Illuminate\Broadcasting\PrivateChannel;
use Illuminate\Contracts\Broadcasting\ShouldBroadcast;
use Illuminate\Foundation\Events\Dispatchable;
use Illuminate\Queue\SerializesModels;

class MessageSent implements ShouldBroadcast
{
    use Dispatchable, InteractsWithSockets, SerializesModels;

    /**
     * The bytes that a message's content may have in the request to the WebSocket
     * server, where it is JSON inside of JSON (an emoji takes 14). Reverb and Pusher take
     * requests of 10 000 bytes, Resound larger ones; the rest is for the envelope.
     */
    public const MAX_CONTENT_BYTES = 7_000;

    /** While the server restarts a job fails; it is tried again after so many seconds. */
    public int $tries = 3;

    public array $backoff = [2, 10];

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
        return strlen(json_encode(json_encode($content))) <= self::MAX_CONTENT_BYTES;
    }
}
