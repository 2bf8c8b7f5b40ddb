<?php

namespace Laravel\Sanctum;

use Illuminate\Auth\RequestGuard;
use Illuminate\Contracts\Auth\Authenticatable;
use Illuminate\Http\Request;
use Illuminate\Support\Facades\Auth;
use Illuminate\Support\ServiceProvider;

class SanctumServiceProvider extends ServiceProvider
{
    public function boot(): void
    {
        Auth::extend('sanctum', function ($app) {
            $guard = new RequestGuard($this->userOf(...), $app['request']);
            $app->refresh('request', $guard, 'setRequest');

            return $guard;
        });
    }

    private function userOf(Request $request): ?Authenticatable
    {
        $token = PersonalAccessToken::findToken($request->bearerToken() ?? '');
        if (! $token || $token->expires_at?->isPast()) {
            return null;
        }
        $token->forceFill(['last_used_at' => now()])->save();

        return $token->tokenable->withAccessToken($token);
    }
}
