<?php

namespace App\Http\Requests\Chat;

use App\Enums\MessageType;
use App\Events\MessageSent;
use App\Rules\Text;
use Closure;
use Illuminate\Foundation\Http\FormRequest;
use Illuminate\Validation\Rules\Enum;

class SendMessageRequest extends FormRequest
{
    public function rules(): array
    {
        $isAddress = in_array($this->input('type'), [MessageType::Image->value, MessageType::File->value], true);

        return [
            'type' => ['sometimes', 'string', new Enum(MessageType::class)],
            'content' => [
                'bail', 'required', 'string', Text::valid(), 'max:4000',
                ...($isAddress ? ['url', 'starts_with:http://,https://'] : []),
                function (string $attribute, string $content, Closure $fail) {
                    if (! MessageSent::contentFits($content)) {
                        $fail('The content is too long to be broadcast.');
                    }
                },
            ],
        ];
    }
}
