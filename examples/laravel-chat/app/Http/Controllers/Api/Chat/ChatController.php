<?php

namespace App\Http\Controllers\Api\Chat;

use App\Events\ChatStarted;
use App\Events\MessageSent;
use App\Events\MessagesRead;
use App\Http\Requests\Chat\SendMessageRequest;
use App\Http\Requests\Chat\StoreChatRequest;
use App\Http\Resources\ChatResource;
use App\Http\Resources\MessageResource;
use App\Models\Chat;
use App\Models\User;
use ErrorException;
use Illuminate\Http\JsonResponse;
use Illuminate\Http\Request;
use Illuminate\Http\Resources\Json\AnonymousResourceCollection;
use Illuminate\Support\Facades\DB;
use Illuminate\Validation\ValidationException;
use UnexpectedValueException;

class ChatController
{
    private const MESSAGES_PER_PAGE = 30;

    /** My chats, each with its latest message and what I have not read. */
    public function index(Request $request): AnonymousResourceCollection
    {
        return ChatResource::collection($request->user()->rooms()->get());
    }

    /** Starts a chat. A private one with the same person is started once: 201, then 200. */
    public function store(StoreChatRequest $request): JsonResponse
    {
        return $request->isGroup() ? $this->startGroup($request) : $this->startPrivate($request);
    }

    /** Sets whether I want to be notified of this chat. */
    public function update(Request $request, Chat $chat): ChatResource
    {
        $muted = $request->validate(['is_muted' => ['required', 'boolean']]);
        $request->user()->chats()->updateExistingPivot($chat->id, $muted);

        return $this->room($request->user(), $chat);
    }

    /** The latest messages, newest first; `links.next` is the address of the older ones. */
    public function messages(Chat $chat): AnonymousResourceCollection
    {
        $messages = $chat->messages()->with('sender')->orderByDesc('id');

        try {
            return MessageResource::collection($messages->cursorPaginate(self::MESSAGES_PER_PAGE));
        } catch (ErrorException|UnexpectedValueException) {
            throw ValidationException::withMessages(['cursor' => 'The cursor is not one of this list.']);
        }
    }

    public function sendMessage(SendMessageRequest $request, Chat $chat): JsonResponse
    {
        // One transaction: with the database queue there is no message without its event.
        $message = DB::transaction(function () use ($request, $chat) {
            $message = $chat->messages()->create(['user_id' => $request->user()->id] + $request->validated());
            broadcast(new MessageSent($message))->toOthers();

            return $message;
        });

        return MessageResource::make($message)->response()->setStatusCode(201);
    }

    /** I have read up to `message_id`, or everything if there is none. */
    public function markAsRead(Request $request, Chat $chat): JsonResponse
    {
        $request->validate(['message_id' => ['sometimes', 'integer']]);
        $reader = $request->user();

        $upTo = $request->has('message_id')
            ? $chat->messages()->findOrFail($request->integer('message_id'))
            : $chat->latestMessage;
        if ($upTo && $chat->markAsRead($reader, $upTo)) {
            broadcast(new MessagesRead($chat, $reader, $upTo))->toOthers();
        }

        $mark = $reader->chats()->findOrFail($chat->id)->pivot->last_read_at;

        return response()->json(['data' => ['user_id' => $reader->id, 'last_read_at' => $mark]]);
    }

    private function startPrivate(StoreChatRequest $request): JsonResponse
    {
        $me = $request->user();
        $asked = $request->validated();
        $other = User::query()->findOrFail($asked['user_id']);

        $chat = Chat::between($me, $other, $asked['contact_id'] ?? null);
        if ($chat->wasRecentlyCreated) {
            broadcast(new ChatStarted($chat, [$me->id, $other->id]))->toOthers();
        }

        $status = $chat->wasRecentlyCreated ? 201 : 200;

        return $this->room($me, $chat)->response()->setStatusCode($status);
    }

    private function startGroup(StoreChatRequest $request): JsonResponse
    {
        $me = $request->user();
        $asked = $request->validated();

        $chat = Chat::group($me, $asked['subject'], $asked['user_ids'], $asked['contact_id'] ?? null);
        broadcast(new ChatStarted($chat, [$me->id, ...$asked['user_ids']]))->toOthers();

        return $this->room($me, $chat)->response()->setStatusCode(201);
    }

    private function room(User $user, Chat $chat): ChatResource
    {
        return ChatResource::make($user->rooms()->findOrFail($chat->id));
    }
}
