<?php

// A receiver of webhooks, as an application with Pusher's SDK for PHP has it. It prints each
// request that the SDK accepts.

// The official SDK where it is installed; else ours.
$sdk = getenv('PUSHER_SDK_AUTOLOAD') ?: '/usr/share/php/Pusher/autoload.php';
if (is_file($sdk)) {
    require_once $sdk;
} else {
    foreach (['PusherException', 'ApiErrorException', 'Webhook', 'Pusher'] as $class) {
        require_once __DIR__."/../../laravel/debian/pusher/{$class}.php";
    }
}

$options = ['host' => '127.0.0.1', 'port' => 80, 'scheme' => 'http'];
$pusher = new Pusher\Pusher(getenv('APP_KEY'), getenv('APP_SECRET'), getenv('APP_ID'), $options);

try {
    // As they were sent: the SDK wants them spelt as Pusher does.
    $webhook = $pusher->webhook(getallheaders(), file_get_contents('php://input'));
} catch (Pusher\PusherException $exception) {
    http_response_code(401);
    echo $exception->getMessage();

    return;
}

$received = ['time_ms' => $webhook->get_time_ms(), 'events' => $webhook->get_events()];
file_put_contents('php://stdout', json_encode($received)."\n");
