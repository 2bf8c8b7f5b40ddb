<?php

namespace App\Models;

use DateTimeInterface;
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

    protected $attributes = ['is_online' => false];

    protected $casts = [
        'is_online' => 'boolean',
        'last_seen_at' => 'datetime',
    ];

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
     * Notes that somebody came or went. What happened before what is known changes nothing,
     * so that it may be told late, and twice.
     */
    public static function noteSeen(int $id, bool $isOnline, DateTimeInterface $at): void
    {
        $time = $at->format('Y-m-d H:i:s.v');

        // Of the table, not of the model: it is no change of the account.
        self::query()->toBase()
            ->where('id', $id)
            ->where(fn ($seen) => $seen->whereNull('last_seen_at')->orWhere('last_seen_at', '<=', $time))
            ->update(['is_online' => $isOnline, 'last_seen_at' => $time]);
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
