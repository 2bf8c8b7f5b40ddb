<?php

// Prints what a Laravel project's configuration says of its WebSocket server, as JSON, for
// `resound import --from-json FILE`. It contains secrets. Run it with the project's own PHP,
// in the project's directory or with that directory as its argument.

ini_set('display_errors', 'stderr');
$directory = rtrim($argv[1] ?? getcwd(), '/');
foreach (['vendor/autoload.php', 'bootstrap/app.php'] as $file) {
    if (!is_file("$directory/$file")) {
        $hint = $file === 'vendor/autoload.php' ? ' (composer install)' : '';
        // There is no STDERR in a program that comes from standard input.
        file_put_contents('php://stderr', "$directory has no $file$hint\n");
        exit(2);
    }
}
chdir($directory);
// What the project prints while it boots is none of this.
ob_start();
require "$directory/vendor/autoload.php";
$app = require "$directory/bootstrap/app.php";
$app->make(Illuminate\Contracts\Console\Kernel::class)->bootstrap();
$config = $app->make('config');

$reverb = $config->get('reverb');
$provider = 'Laravel\\Reverb\\Contracts\\ApplicationProvider';
if (($reverb['apps']['provider'] ?? 'config') !== 'config' && interface_exists($provider)) {
    $reverb['apps']['apps'] = $app->make($provider)->all()->map(fn ($it) => $it->toArray())->values()->all();
}
$connection = $config->get('broadcasting.default');
$redis = array_unique(['default', $config->get('websockets.replication.modes.redis.connection', 'default')]);
$document = [
    'format' => 1,
    'app_url' => $config->get('app.url'),
    'reverb' => $reverb,
    // Those of other services are nobody's business.
    'broadcasting' => [
        'default' => $connection,
        'connections' => [$connection => $config->get("broadcasting.connections.$connection")],
    ],
    'redis' => array_combine($redis, array_map(fn ($it) => $config->get("database.redis.$it"), $redis)),
    'websockets' => $config->get('websockets'),
];
$json = json_encode($document, JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE);
ob_end_clean();
file_put_contents('php://stdout', $json . "\n");
// What it prints at its end is none of this, either.
ob_start(fn () => '');
