<?php

// The structure of Laravel 10. Laravel 11 to 13 boot it as well, which cannot be
// said the other way round.

use Illuminate\Foundation\Application;

$app = new Application(dirname(__DIR__));

$app->singleton(Illuminate\Contracts\Http\Kernel::class, App\Http\Kernel::class);
$app->singleton(Illuminate\Contracts\Console\Kernel::class, App\Console\Kernel::class);
$app->singleton(Illuminate\Contracts\Debug\ExceptionHandler::class, App\Exceptions\Handler::class);

return $app;
