<?php

namespace App\Http\Requests\Chat;

use App\Enums\ChatType;
use Illuminate\Foundation\Http\FormRequest;
use Illuminate\Validation\Rule;
use Illuminate\Validation\Rules\Enum;

class StoreChatRequest extends FormRequest
{
    public function rules(): array
    {
        $notMe = Rule::notIn([$this->user()->id]);
        $contact = ['contact_id' => ['nullable', 'integer', 'min:1']];

        if (! $this->isGroup()) {
            return $contact + [
                'type' => ['sometimes', 'string', new Enum(ChatType::class)],
                'user_id' => ['bail', 'required', 'integer', $notMe, 'exists:users,id'],
            ];
        }

        return $contact + [
            'subject' => ['required', 'string', 'max:120'],
            'user_ids' => ['required', 'array', 'max:50'],
            'user_ids.*' => ['bail', 'integer', 'distinct', $notMe, 'exists:users,id'],
        ];
    }

    public function isGroup(): bool
    {
        return $this->input('type') === ChatType::Group->value;
    }
}
