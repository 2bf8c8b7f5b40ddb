<?php

namespace Database\Seeders;

use App\Models\Chat;
use App\Models\Message;
use App\Models\User;
use Illuminate\Database\Seeder;

class DatabaseSeeder extends Seeder
{
    /** Three people who know each other, and Dora, who takes part in nothing. */
    public function run(): void
    {
        [$ana, $ben, $carla] = collect(['Ana', 'Ben', 'Carla', 'Dora'])->map(fn (string $name) => User::factory()->create([
            'name' => $name,
            'email' => strtolower($name).'@example.test',
        ]));

        $chat = Chat::between($ana, $ben);
        $this->write($chat, $ana, 'Hello Ben, the flat in Calle Mayor is free again.');
        $this->write($chat, $ben, 'I can show it on Thursday at five.');

        $group = Chat::group($ana, 'Viewings', [$ben->id, $carla->id]);
        Message::factory()->system()->for($group)->create(['content' => 'Ana started the group']);
        $this->write($group, $carla, 'Who has the keys?');
    }

    private function write(Chat $chat, User $sender, string $content): void
    {
        Message::factory()->for($chat)->for($sender, 'sender')->create(['content' => $content]);
    }
}
