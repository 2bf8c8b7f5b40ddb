<?php

namespace App\Policies;

use App\Enums\ChatType;
use App\Models\Chat;
use App\Models\User;

class ChatPolicy
{
    /** Read, write, mute: whoever takes part. */
    public function participate(User $user, Chat $chat): bool
    {
        return $user->chats()->whereKey($chat->id)->exists();
    }

    /** A private chat keeps its two; to a group people come and go. */
    public function changeParticipants(User $user, Chat $chat): bool
    {
        return $chat->type === ChatType::Group && $this->participate($user, $chat);
    }

    /** Everybody leaves by themselves, and the owner removes others. */
    public function removeParticipant(User $user, Chat $chat, User $participant): bool
    {
        return $this->changeParticipants($user, $chat) && ($participant->is($user) || $user->is($chat->owner()));
    }
}
