<?php

namespace App\Http\Resources;

use Illuminate\Http\Resources\Json\JsonResource;

/** @mixin \App\Models\Message */
class MessageResource extends JsonResource
{
    public function toArray($request): array
    {
        return [
            'id' => $this->id,
            'chat_id' => $this->chat_id,
            'user_id' => $this->user_id,
            'content' => $this->content,
            'type' => $this->type,
            'read_at' => $this->read_at,
            'created_at' => $this->created_at,
            'sender' => $this->sender->only('id', 'name'),
        ];
    }
}
