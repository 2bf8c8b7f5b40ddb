<?php

use App\Models\User;
use Illuminate\Support\Facades\Broadcast;

// Both private-chat.{id}, which carries the events, and presence-chat.{id}, which shows
// who is here and carries the whispers. A private channel needs something true; of a
// presence channel the others are told what stands here.
Broadcast::channel('chat.{id}', function (User $user, string $id) {
    // MySQL finds the chat 1 under '1x', too.
    return $id === (string) (int) $id && $user->chats()->whereKey($id)->exists()
        ? ['id' => $user->id, 'name' => $user->name]
        : false;
});

// presence-online, which every open page is in: webhooks of it say who was last seen when,
// and it lets Resound know whose connection it is, on every channel. Everybody sees here
// who is online; where that is too much, have a channel for each team.
Broadcast::channel('online', fn (User $user) => ['id' => $user->id]);

Broadcast::channel('App.Models.User.{id}', function (User $user, string $id) {
    return (string) $user->id === $id;
});
