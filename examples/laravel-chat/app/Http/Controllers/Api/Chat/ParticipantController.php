<?php

namespace App\Http\Controllers\Api\Chat;

use App\Events\ChatStarted;
use App\Events\MessageSent;
use App\Http\Resources\ChatResource;
use App\Http\Resources\UserResource;
use App\Models\Chat;
use App\Models\User;
use Illuminate\Http\Request;
use Illuminate\Http\Resources\Json\AnonymousResourceCollection;
use Illuminate\Http\Response;
use Illuminate\Support\Facades\Gate;

/** Who can be written to, and who comes into a group and leaves it. */
class ParticipantController
{
    public function index(Request $request): AnonymousResourceCollection
    {
        return UserResource::collection(User::query()->whereKeyNot($request->user()->id)->orderBy('name')->get());
    }

    public function store(Request $request, Chat $chat): ChatResource
    {
        Gate::authorize('changeParticipants', $chat);
        $added = $request->validate([
            'user_ids' => ['required', 'array', 'max:50'],
            'user_ids.*' => ['integer', 'distinct', 'exists:users,id'],
        ]);

        $ids = $chat->participants()->syncWithoutDetaching($added['user_ids'])['attached'];
        if ($ids) {
            $names = User::query()->whereKey($ids)->orderBy('name')->pluck('name')->join(', ', ' and ');
            $this->announce($chat, "{$request->user()->name} added {$names}");
            broadcast(new ChatStarted($chat, $ids))->toOthers();
        }

        return ChatResource::make($request->user()->rooms()->findOrFail($chat->id));
    }

    /** Leaves the group. */
    public function destroy(Request $request, Chat $chat): Response
    {
        Gate::authorize('changeParticipants', $chat);

        $chat->participants()->detach($request->user()->id);
        $this->announce($chat, "{$request->user()->name} left");

        return response()->noContent();
    }

    /** A system message: nobody sent it, and whoever caused it sees it, too. */
    private function announce(Chat $chat, string $content): void
    {
        broadcast(new MessageSent($chat->messages()->create(['content' => $content])));
    }
}
