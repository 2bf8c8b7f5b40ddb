<?php

namespace Database\Factories;

use App\Enums\ChatType;
use App\Models\Chat;
use Illuminate\Database\Eloquent\Factories\Factory;
use Illuminate\Support\Str;

/** @extends Factory<Chat> */
class ChatFactory extends Factory
{
    protected $model = Chat::class;

    /** A group that nobody takes part in yet: ->hasAttached($users, [], 'participants'). */
    public function definition(): array
    {
        return [
            'uuid' => (string) Str::uuid(),
            'type' => ChatType::Group,
            'subject' => $this->faker->sentence(3),
        ];
    }
}
