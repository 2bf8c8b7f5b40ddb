<?php

namespace App\Http\Requests\Chat;

use App\Enums\ChatType;
use App\Models\User;
use App\Rules\Text;
use Closure;
use Illuminate\Foundation\Http\FormRequest;
use Illuminate\Validation\Rules\Enum;

class StoreChatRequest extends FormRequest
{
    public function rules(): array
    {
        $contact = ['contact_id' => ['nullable', 'integer', 'min:1']];

        if (! $this->isGroup()) {
            return $contact + [
                'type' => ['sometimes', 'string', new Enum(ChatType::class)],
                'user_id' => ['bail', 'required', 'integer', self::contactOf($this->user())],
            ];
        }

        return $contact + [
            'subject' => ['bail', 'required', 'string', Text::valid(), 'max:120'],
            'user_ids' => ['required', 'array', 'max:50'],
            'user_ids.*' => ['bail', 'integer', 'distinct', self::contactOf($this->user())],
        ];
    }

    /** Somebody whom this user may write to. */
    public static function contactOf(User $user): Closure
    {
        return function (string $attribute, mixed $id, Closure $fail) use ($user) {
            if (! $user->contacts()->whereKey($id)->exists()) {
                $fail("The selected {$attribute} is invalid.");
            }
        };
    }

    public function isGroup(): bool
    {
        return $this->input('type') === ChatType::Group->value;
    }
}
