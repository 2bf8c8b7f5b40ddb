<?php

namespace App\Models;

use Illuminate\Database\Eloquent\Builder;
use Illuminate\Database\Eloquent\Factories\HasFactory;
use Illuminate\Database\Eloquent\Relations\BelongsToMany;
use Illuminate\Foundation\Auth\User as Authenticatable;
use Laravel\Sanctum\HasApiTokens;

class User extends Authenticatable
{
    use HasApiTokens, HasFactory;

    protected $fillable = ['name', 'email', 'password'];

    protected $hidden = ['password'];

    /** Whom I may write to. Here everybody; a CRM narrows it down to a team, say. */
    public function contacts(): Builder
    {
        return self::query()->whereKeyNot($this->id)->orderBy('name');
    }

    public function chats(): BelongsToMany
    {
        return $this->belongsToMany(Chat::class, 'inmo_chat_participants')
            ->using(ChatParticipant::class)
            ->withPivot('last_read_at', 'is_muted')
            ->withTimestamps();
    }

    /**
     * My chats as a list shows them, the one with the latest message first: who takes
     * part, the latest message, and as `unread_count` what others wrote since I read.
     */
    public function rooms(): BelongsToMany
    {
        return $this->chats()
            ->with('participants', 'latestMessage.sender')
            ->withCount(['messages as unread_count' => function (Builder $messages) {
                $messages->where('inmo_messages.user_id', '<>', $this->id)->where(function (Builder $unread) {
                    $unread->whereNull('inmo_chat_participants.last_read_at')
                        ->orWhereColumn('inmo_messages.created_at', '>', 'inmo_chat_participants.last_read_at');
                });
            }])
            ->withMax('messages as latest_message_id', 'id')
            ->orderByDesc('latest_message_id')
            ->orderByDesc('inmo_chats.id');
    }
}
