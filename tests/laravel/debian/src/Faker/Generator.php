<?php

namespace Faker;

use Illuminate\Support\Str;

/** The words that the chat's factories ask for. */
class Generator
{
    public function unique(bool $reset = false): static
    {
        return $this;
    }

    public function name(): string
    {
        return ucfirst($this->word()).' '.ucfirst($this->word());
    }

    public function safeEmail(): string
    {
        return Str::uuid().'@example.test';
    }

    public function sentence(int $words = 6): string
    {
        return ucfirst(implode(' ', array_map($this->word(...), range(1, $words)))).'.';
    }

    private function word(): string
    {
        return strtolower(Str::random(random_int(3, 8)));
    }
}
