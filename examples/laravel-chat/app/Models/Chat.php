<?php

namespace App\Models;

use App\Enums\ChatType;
use Illuminate\Database\Eloquent\Factories\HasFactory;
use Illuminate\Database\Eloquent\Model;
use Illuminate\Database\Eloquent\Relations\BelongsToMany;
use Illuminate\Database\Eloquent\Relations\HasMany;
use Illuminate\Database\Eloquent\Relations\HasOne;
use Illuminate\Database\Query\Builder;
use Illuminate\Support\Facades\DB;
use Illuminate\Support\Str;
use Ramsey\Uuid\Uuid;

class Chat extends Model
{
    use HasFactory;

    protected $table = 'inmo_chats';

    protected $dateFormat = 'Y-m-d H:i:s.u';

    protected $fillable = ['uuid', 'type', 'subject', 'contact_id'];

    protected $casts = ['type' => ChatType::class];

    public function participants(): BelongsToMany
    {
        return $this->belongsToMany(User::class, 'inmo_chat_participants')
            ->using(ChatParticipant::class)
            ->withPivot('last_read_at', 'is_muted')
            ->withTimestamps();
    }

    public function messages(): HasMany
    {
        return $this->hasMany(Message::class);
    }

    public function latestMessage(): HasOne
    {
        return $this->hasOne(Message::class)->latestOfMany();
    }

    /** Who started the group; after that person has left, who has been in it for the longest time. */
    public function owner(): ?User
    {
        return $this->type === ChatType::Group
            ? $this->participants->sortBy(fn (User $user) => [$user->pivot->created_at, $user->id])->first()
            : null;
    }

    /**
     * The private chat of these two, about a contact or about none. There is never a
     * second one, not even when both start it at once: its uuid, which is unique, is
     * made of the two.
     */
    public static function between(User $one, User $other, ?int $contactId = null): self
    {
        $pair = collect([$one->id, $other->id])->sort()->implode(':');
        $uuid = (string) Uuid::uuid5(Uuid::NIL, "private-chat:{$pair}:{$contactId}");

        return DB::transaction(function () use ($one, $other, $contactId, $uuid) {
            $chat = new self(['uuid' => $uuid, 'type' => ChatType::Private, 'contact_id' => $contactId]);
            $chat->updateTimestamps();
            $isNew = self::query()->insertOrIgnore($chat->getAttributes());

            $chat = self::query()->where('uuid', $uuid)->firstOrFail();
            if ($isNew) {
                $chat->participants()->attach([$one->id, $other->id]);
                $chat->wasRecentlyCreated = true;
            }

            return $chat;
        });
    }

    /** @param  int[]  $userIds  who takes part besides the founder */
    public static function group(User $founder, string $subject, array $userIds, ?int $contactId = null): self
    {
        return DB::transaction(function () use ($founder, $subject, $userIds, $contactId) {
            $chat = self::query()->create([
                'uuid' => (string) Str::uuid(),
                'type' => ChatType::Group,
                'subject' => $subject,
                'contact_id' => $contactId,
            ]);
            // One after the other, for the times tell who the owner is.
            $chat->participants()->attach($founder->id);
            $chat->participants()->attach($userIds);
            $chat->messages()->create(['content' => "{$founder->name} started the group"]);

            return $chat;
        });
    }

    /**
     * Takes people into the group; for them it begins now.
     *
     * @param  int[]  $userIds
     * @return int[] those who did not take part before
     */
    public function admit(array $userIds): array
    {
        $now = (new ChatParticipant)->freshTimestampString();
        $row = ['chat_id' => $this->id, 'last_read_at' => $now, 'created_at' => $now, 'updated_at' => $now];

        // One by one, because only so it is known who was there: two may add the same person.
        return array_values(array_filter(
            $userIds,
            fn (int $id) => ChatParticipant::query()->insertOrIgnore(['user_id' => $id] + $row),
        ));
    }

    /** Lets somebody go; false if they had gone. */
    public function release(User $participant): bool
    {
        $hasLeft = (bool) $this->participants()->detach($participant->id);
        if ($hasLeft) {
            // What nobody else had left to read.
            $this->noteWhatAllHaveRead();
        }

        return $hasLeft;
    }

    /**
     * Notes that somebody has read up to this message, and which messages everybody has
     * read now. The mark only moves forward: false if it was there already.
     */
    public function markAsRead(User $reader, Message $upTo): bool
    {
        $time = $upTo->fromDateTime($upTo->created_at);
        $mark = fn () => ChatParticipant::query()->where('chat_id', $this->id)->where('user_id', $reader->id);

        $before = $mark()->toBase()->value('last_read_at');
        $hasMoved = $mark()
            ->where(fn ($query) => $query->whereNull('last_read_at')->orWhere('last_read_at', '<', $time))
            ->update(['last_read_at' => $time]);
        if ($hasMoved) {
            // Of those before the mark nothing has changed; they can be many.
            $this->noteWhatAllHaveRead($before, $time);
        }

        return (bool) $hasMoved;
    }

    /** Sets `read_at` where everybody but the sender has read, after one time and up to another. */
    private function noteWhatAllHaveRead(?string $after = null, ?string $upTo = null): void
    {
        // Of the table, not of the model: that a message is read is no change of it.
        $this->messages()->toBase()
            ->whereNull('read_at')
            ->whereNotNull('user_id')
            ->when($after, fn ($query) => $query->where('created_at', '>', $after))
            ->when($upTo, fn ($query) => $query->where('created_at', '<=', $upTo))
            ->whereNotExists($this->participantsWhoHaveNotReadIt(...))
            ->update(['read_at' => (new Message)->freshTimestampString()]);
    }

    /** Those other than the sender whose mark is before the message of the outer query. */
    private function participantsWhoHaveNotReadIt(Builder $participants): void
    {
        $participants->from('inmo_chat_participants')
            ->whereColumn('inmo_chat_participants.chat_id', 'inmo_messages.chat_id')
            ->whereColumn('inmo_chat_participants.user_id', '<>', 'inmo_messages.user_id')
            ->where(fn ($mark) => $mark->whereNull('inmo_chat_participants.last_read_at')
                ->orWhereColumn('inmo_chat_participants.last_read_at', '<', 'inmo_messages.created_at'));
    }
}
