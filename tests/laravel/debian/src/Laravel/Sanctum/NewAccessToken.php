<?php

namespace Laravel\Sanctum;

class NewAccessToken
{
    public function __construct(public PersonalAccessToken $accessToken, public string $plainTextToken)
    {
    }
}
