<?php

namespace App\Http\Resources;

use App\Models\User;
use Illuminate\Http\Resources\Json\JsonResource;

/**
 * One of User::rooms().
 *
 * @mixin \App\Models\Chat
 */
class ChatResource extends JsonResource
{
    public function toArray($request): array
    {
        return [
            'id' => $this->id,
            'uuid' => $this->uuid,
            'type' => $this->type,
            'subject' => $this->subject,
            'name' => $this->subject ?? $this->participants->firstWhere('id', '<>', $request->user()->id)?->name,
            'contact_id' => $this->contact_id,
            'is_muted' => $this->pivot->is_muted,
            'unread_count' => (int) $this->unread_count,
            'latest_message' => $this->latestMessage ? MessageResource::make($this->latestMessage) : null,
            'owner_id' => $this->owner()?->id,
            'participants' => $this->participants->map(fn (User $participant) => [
                ...UserResource::make($participant)->resolve($request),
                'last_read_at' => $participant->pivot->last_read_at,
            ]),
        ];
    }
}
