<?php

// Stands for Composer's vendor/autoload.php in an application beside Debian's Laravel.
// APP_VENDOR is defined by the file in vendor/ that includes this one.

require_once '/usr/share/php/Illuminate/autoload.php';

spl_autoload_register(static function (string $class): void {
    $application = dirname(APP_VENDOR);
    $folders = [
        'App\\' => "{$application}/app/",
        'Database\\Factories\\' => "{$application}/database/factories/",
        'Database\\Seeders\\' => "{$application}/database/seeders/",
        'Resound\\LaravelTests\\' => __DIR__.'/src/Resound/LaravelTests/',
        '' => __DIR__.'/src/',
    ];

    foreach ($folders as $prefix => $folder) {
        $file = $folder.str_replace('\\', '/', substr($class, strlen($prefix))).'.php';
        if (($prefix === '' || str_starts_with($class, $prefix)) && is_file($file)) {
            require $file;

            return;
        }
    }
});

// The official SDK where it is installed; else ours.
$sdk = getenv('PUSHER_SDK_AUTOLOAD') ?: '/usr/share/php/Pusher/autoload.php';
if (is_file($sdk)) {
    require_once $sdk;
} else {
    foreach (['PusherException', 'ApiErrorException', 'Webhook', 'Pusher'] as $class) {
        require_once __DIR__."/pusher/{$class}.php";
    }
}
