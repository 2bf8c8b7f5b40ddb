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
if (($argv[2] ?? '') === 'doctor') {
    $document['state'] = state_of_project($app, $config, $directory);
}
$json = json_encode($document, JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE);
ob_end_clean();
file_put_contents('php://stdout', $json . "\n");
// What it prints at its end is none of this, either.
ob_start(fn () => '');

// What else `resound doctor` looks at.
function state_of_project($app, $config, string $directory): array
{
    $routes = [];
    foreach ($app->make('router')->getRoutes() as $route) {
        if (in_array('POST', $route->methods()) && str_ends_with($route->uri(), 'broadcasting/auth')) {
            $routes[] = '/'.ltrim($route->uri(), '/');
        }
    }

    return [
        'framework' => $app->version(),
        'auth_routes' => $routes,
        'stale' => $app->configurationIsCached() ? stale_configuration($app, $directory) : [],
        'queue' => state_of_queue($app, $config),
    ];
}

// Where the cached configuration is not what the files and .env say now.
function stale_configuration($app, string $directory): array
{
    Dotenv\Dotenv::create(Illuminate\Support\Env::getRepository(), $app->environmentPath(), $app->environmentFile())->safeLoad();
    $cached = require $app->getCachedConfigPath();
    $stale = [];
    foreach (['broadcasting', 'reverb', 'queue'] as $name) {
        $file = "$directory/config/$name.php";
        // Without a file, Laravel has its own.
        $now = is_file($file) ? Illuminate\Support\Arr::dot(require $file) : [];
        foreach ($now as $key => $value) {
            // What is not said here may be said to the web server alone.
            if (!is_null($value) && !is_object($value) && Illuminate\Support\Arr::get($cached, "$name.$key") != $value) {
                $stale[] = "$name.$key";
            }
        }
    }

    return $stale;
}

// Jobs that wait, and since when, where the connection tells.
function state_of_queue($app, $config): array
{
    $connection = $config->get('queue.default');
    $queue = $config->get("queue.connections.$connection", []);
    $name = $queue['queue'] ?? 'default';
    $driver = $queue['driver'] ?? null;
    $state = ['connection' => $connection, 'queue' => $name];
    if (in_array($driver, [null, 'sync', 'null', 'deferred', 'background'], true)) {
        return $state;
    }
    try {
        // A database or Redis that does not answer must not look like a project that does not boot.
        ini_set('default_socket_timeout', '5');
        ini_set('mysqlnd.net_read_timeout', '5');
        $database = $queue['connection'] ?? $config->get('database.default');
        $kind = $config->get("database.connections.$database.driver");
        if ($driver === 'database' && in_array($kind, ['mysql', 'mariadb', 'pgsql'], true)) {
            $options = $config->get("database.connections.$database.options") ?? [];
            $config->set("database.connections.$database.options", [PDO::ATTR_TIMEOUT => 5] + $options);
            $app->make('db')->purge($database);
        }
        $jobs = $app->make('queue')->connection();
        $state['waiting'] = $jobs->size($name);
        $oldest = null;
        if ($driver === 'database') {
            $rows = $app->make('db')->connection($queue['connection'] ?? null)->table($queue['table'] ?? 'jobs')->where('queue', $name);
            $state['is_worked'] = (clone $rows)->where('reserved_at', '>', time() - 300)->exists();
            $oldest = $rows->whereNull('reserved_at')->where('available_at', '<=', time())->min('available_at');
        } elseif (method_exists($jobs, 'creationTimeOfOldestPendingJob')) {
            $oldest = $jobs->creationTimeOfOldestPendingJob($name);
        }
        $state['oldest_seconds'] = $oldest === null ? null : time() - (int) $oldest;
    } catch (Throwable $error) {
        $state['error'] = $error->getMessage();
    }

    return $state;
}
