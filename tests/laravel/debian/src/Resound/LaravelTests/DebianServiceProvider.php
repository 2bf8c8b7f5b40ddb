<?php

namespace Resound\LaravelTests;

use App\Http\Kernel;
use Illuminate\Broadcasting\Broadcasters\PusherBroadcaster;
use Illuminate\Http\Request;
use Illuminate\Support\Facades\Broadcast;
use Illuminate\Support\Facades\Route;
use Illuminate\Support\ServiceProvider;
use Pusher\Pusher;
use ReflectionClass;

/** What the chat uses of Laravel 10 and Laravel 8 does not have. */
class DebianServiceProvider extends ServiceProvider
{
    public function register(): void
    {
        // Laravel 8 has the messages of the validation in the application.
        $this->app->instance('path.lang', dirname(__DIR__, 3).'/lang');
    }

    public function boot(): void
    {
        // The driver `reverb` is the driver `pusher` under another name.
        Broadcast::extend('reverb', fn ($app, array $config) => new PusherBroadcaster(
            new Pusher($config['key'], $config['secret'], $config['app_id'], $config['options']),
        ));

        // Laravel 8 looks for them under `$routeMiddleware`.
        $aliases = (new ReflectionClass(Kernel::class))->getDefaultProperties()['middlewareAliases'];
        foreach ($aliases as $name => $middleware) {
            Route::aliasMiddleware($name, $middleware);
        }

        Request::macro('integer', fn (string $key) => (int) $this->input($key));
    }
}
