<?php

namespace Laravel\Sanctum;

use Illuminate\Database\Eloquent\Model;
use Illuminate\Database\Eloquent\Relations\MorphTo;

class PersonalAccessToken extends Model
{
    protected $fillable = ['name', 'token', 'abilities', 'expires_at'];

    protected $casts = [
        'abilities' => 'json',
        'last_used_at' => 'datetime',
        'expires_at' => 'datetime',
    ];

    public function tokenable(): MorphTo
    {
        return $this->morphTo();
    }

    /** @param  string  $presented  `id|secret`, of which the table has the secret's SHA-256 */
    public static function findToken(string $presented): ?static
    {
        [$id, $secret] = explode('|', $presented, 2) + [1 => ''];
        $token = static::query()->find($id);

        return $token && hash_equals($token->token, hash('sha256', $secret)) ? $token : null;
    }
}
