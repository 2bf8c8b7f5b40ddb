// A real Laravel, with its own PHP and its own server: each set-up is wrong in one way.

import { copyFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { after, before, test } from '../clients/support/test.mjs';
import { URL_OF_LARAVEL, install } from '../laravel/support/application.mjs';
import { logIn } from '../laravel/support/person.mjs';
import { APP } from '../clients/support/app.mjs';
import { Setup, assertFine, assertFirst, freePort } from './support/setup.mjs';

const LOOKED_AT = ['laravel', 'settings', 'connect', 'signature', 'socket', 'private-channel', 'delivery', 'auth-endpoint', 'queue'];
const here = fileURLToPath(new URL('.', import.meta.url));
const provider = 'app/Providers/BroadcastServiceProvider.php';
const routes = "Broadcast::routes(['prefix' => 'api', 'middleware' => ['api', 'auth:sanctum']]);";

let application;
let dotenv;

before(async () => {
  application = await install();
  dotenv = readFileSync(application.envFile, 'utf8');
  // PHP is to see changes of its files at once. What is behind the colon is read after its own.
  writeFileSync(path.join(application.folder, 'opcache.ini'), 'opcache.enable=0\n');
  process.env.PHP_INI_SCAN_DIR = `:${application.folder}`;
  await application.serve();
}, { timeout: 60_000 });

after(() => application?.stop());

/** The application as its README has it, and a server that it dials. */
async function project(t, serverEnv = {}) {
  const setup = new Setup(t);
  const port = await setup.server(serverEnv);
  t.after(() => writeFileSync(application.envFile, dotenv));
  application.set({ REVERB_HOST: 'localhost', REVERB_PORT: port, REVERB_SERVER_PORT: port, REVERB_SERVER_HOST: '127.0.0.1' });
  return {
    setup,
    port,
    /** What the doctor says in the project's directory. */
    doctor: (...args) => setup.doctor(args, { cwd: application.folder }),
  };
}

const undos = new WeakMap();

/** Changes a file of the project until the test is over; what was changed last is undone first. */
function change(t, file, changed) {
  const whole = path.join(application.folder, file);
  const old = readFileSync(whole, 'utf8');
  if (!undos.has(t)) {
    undos.set(t, []);
    t.after(() => undos.get(t).reverse().forEach((undo) => undo()));
  }
  undos.get(t).push(() => writeFileSync(whole, old));
  writeFileSync(whole, typeof changed === 'function' ? changed(old) : changed);
}

/** Has Laravel's middleware for pages with sessions. */
function withSessions(t) {
  const file = path.join(application.folder, 'config/session.php');
  writeFileSync(file, `<?php return ['driver' => 'file', 'lifetime' => 120, 'expire_on_close' => false, 'encrypt' => false,
    'files' => storage_path('framework'), 'lottery' => [0, 100], 'cookie' => 'chat_session', 'path' => '/', 'domain' => null,
    'secure' => false, 'http_only' => true, 'same_site' => 'lax'];`);
  t.after(() => rmSync(file));
  const providers = ['Illuminate\\Session\\SessionServiceProvider::class', 'Illuminate\\Cookie\\CookieServiceProvider::class'];
  change(t, 'config/app.php', (text) => text.replace("'providers' => [", `'providers' => [ ${providers.join(', ')},`));
  const middleware = ['Cookie\\Middleware\\AddQueuedCookiesToResponse', 'Session\\Middleware\\StartSession', 'Foundation\\Http\\Middleware\\VerifyCsrfToken'];
  const names = middleware.map((name) => `\\Illuminate\\${name}::class`);
  change(t, 'app/Http/Kernel.php', (text) => text.replace("'web' => [", `'web' => [ ${names.join(', ')},`));
}

test('right: a project whose server and queue run', async (t) => {
  const { doctor } = await project(t);
  // What reverb:install publishes.
  const published = path.join(application.folder, 'config/reverb.php');
  copyFileSync(path.join(here, '../laravel/support/reverb.php'), published);
  t.after(() => rmSync(published));
  assertFine(await doctor(), [...LOOKED_AT, 'machine']);
});

test('right: the project asked from elsewhere, for a user', async (t) => {
  const { setup, port } = await project(t);
  const { token } = await logIn('Ana');
  setup.dotenv({ REVERB_SERVER_PORT: port });
  const args = ['--project', application.folder, '--header', `Authorization: Bearer ${token}`, '--channel', 'private-chat.1'];
  assertFine(await setup.doctor(args), LOOKED_AT);
});

test('right: without PHP the .env is looked at', async (t) => {
  const { doctor } = await project(t);
  assertFine(await doctor('--php', 'no-such-php'), ['settings', 'connect', 'signature', 'socket', 'delivery']);
});

test('Laravel broadcasts to its log', async (t) => {
  const { doctor } = await project(t);
  application.set({ BROADCAST_DRIVER: 'log' });
  assertFirst(await doctor(), { check: 'broadcaster', text: /broadcasts with "log"/, fix: /BROADCAST_DRIVER=reverb \(.*\.env line 1\).*config:clear/ });
});

test('a cached configuration hides a change of .env', async (t) => {
  const { doctor } = await project(t);
  await application.artisan('config:cache');
  t.after(() => application.artisan('config:clear'));
  application.set({ REVERB_APP_SECRET: 'changed' });
  assertFirst(await doctor(), { check: 'config-cache', text: /broadcasting\.connections\.reverb\.secret/, fix: /php artisan config:cache/ });
});

test('Laravel dials a port on which nothing listens', async (t) => {
  const { doctor, port } = await project(t);
  application.set({ REVERB_PORT: await freePort() });
  const fix = new RegExp(`REVERB_PORT=${port}, or REVERB_SERVER_PORT=.*\\.env line \\d`);
  assertFirst(await doctor(), { check: 'connect', text: /nothing listens there/, fix });
});

test('Laravel does not know where to publish', async (t) => {
  const { doctor } = await project(t);
  application.set({ REVERB_HOST: '' });
  assertFirst(await doctor(), { check: 'laravel-address', text: /broadcasting\.connections\.reverb\.options\.host is empty/, fix: /REVERB_HOST/ });
});

test('the running server has another secret than .env', async (t) => {
  const { doctor } = await project(t);
  application.set({ REVERB_APP_SECRET: 'changed' });
  assertFirst(await doctor(), { check: 'signature', text: /401/, fix: /REVERB_APP_SECRET \(.*\.env line \d+\).*resound reload/ });
});

test("Laravel's own configuration has another key than the server's", async (t) => {
  const { doctor } = await project(t);
  change(t, 'config/broadcasting.php', (text) => text.replace("env('REVERB_APP_KEY')", "'typed-wrong'"));
  assertFirst(await doctor(), { check: 'application', text: /key \(broadcasting\.connections\.reverb\.key\) is not that of application "my-app-id"/, fix: /REVERB_APP_KEY/ });
});

test('the project does not boot', async (t) => {
  const { doctor } = await project(t);
  change(t, 'config/cors.php', '<?php throw new RuntimeException("no such host: vault");');
  assertFirst(await doctor(), { check: 'laravel', text: /does not boot.*no such host: vault/s, fix: /artisan about/ });
});

test('the project has no route for authorization', async (t) => {
  const { doctor } = await project(t);
  change(t, provider, (text) => text.replace(routes, ''));
  assertFirst(await doctor(), { check: 'auth-endpoint', text: /no route broadcasting\/auth/, fix: /Broadcast::routes\(\)/ });
});

test('the page asks at an address that is not there', async (t) => {
  const { doctor } = await project(t);
  assertFirst(await doctor('--auth', `${URL_OF_LARAVEL}/broadcasting/auth`), { check: 'auth-endpoint', text: /answers 40[45]: there is no such route/, fix: /authEndpoint in Echo's options/ });
});

test('the page has no token', async (t) => {
  const { doctor } = await project(t);
  withSessions(t);
  // Broadcast::routes() asks for none, a route of one's own does.
  change(t, provider, (text) => text.replace(routes, ''));
  change(t, 'routes/web.php', (text) => `${text}\nRoute::post('/broadcasting/auth', fn (Illuminate\\Http\\Request $request) => Illuminate\\Support\\Facades\\Broadcast::auth($request));\n`);
  assertFirst(await doctor(), { check: 'auth-endpoint', text: /answers 419: the page has no token/, fix: /Broadcast::routes\(\).*<meta name="csrf-token"/ });
  // With one, a guest is refused, and not the request.
  change(t, 'resources/views/chat.blade.php', (text) => text.replace('<meta charset="utf-8">', '<meta charset="utf-8"><meta name="csrf-token" content="{{ csrf_token() }}">'));
  assertFine(await doctor(), LOOKED_AT);
});

test('a user is sent to a login', async (t) => {
  const { doctor } = await project(t);
  withSessions(t);
  change(t, provider, (text) => text.replace(routes, "Broadcast::routes(['middleware' => ['web', 'auth:sanctum']]);"));
  change(t, 'routes/web.php', (text) => `${text}\nRoute::view('/login', 'chat')->name('login');\n`);
  change(t, 'app/Http/Kernel.php', (text) => text.replace('\\Illuminate\\Auth\\Middleware\\Authenticate::class', '\\App\\Http\\Login::class'));
  const login = path.join(application.folder, 'app/Http/Login.php');
  writeFileSync(login, "<?php namespace App\\Http; class Login extends \\Illuminate\\Auth\\Middleware\\Authenticate { protected function redirectTo($request) { return route('login'); } }");
  t.after(() => rmSync(login));
  // A guest is; a user is not to be.
  assertFine(await doctor(), LOOKED_AT);
  assertFirst(await doctor('--header', 'Authorization: Bearer 1|expired'), { check: 'auth-endpoint', text: /answers 302: it redirects to .*\/login/, fix: /Authorization: 'Bearer/ });
});

test('right: Laravel publishes with a further application of its config/reverb.php', async (t) => {
  const { doctor } = await project(t);
  application.set({ REVERB_APP_ID: 'first', REVERB_APP_KEY: 'first-key', REVERB_APP_SECRET: 'first-secret' });
  change(t, 'config/broadcasting.php', (text) => {
    const own = { KEY: APP.key, SECRET: APP.secret, ID: APP.id };
    return Object.entries(own).reduce((changed, [name, value]) => changed.replace(`env('REVERB_APP_${name}')`, `'${value}'`), text);
  });
  const published = path.join(application.folder, 'config/reverb.php');
  const base = JSON.stringify(path.join(here, '../laravel/support/reverb.php'));
  writeFileSync(published, `<?php $all = require ${base}; $all['apps']['apps'][] = ['app_id' => '${APP.id}', 'key' => '${APP.key}', 'secret' => '${APP.secret}'] + $all['apps']['apps'][0]; return $all;`);
  t.after(() => rmSync(published));
  assertFine(await doctor(), LOOKED_AT);
});

test('right: a user who is asked for by the cookie of a session', async (t) => {
  const { doctor } = await project(t);
  withSessions(t);
  change(t, 'config/auth.php', (text) => text.replace("'guard' => 'sanctum'", "'guard' => 'web'").replace("'guards' => [", "'guards' => ['web' => ['driver' => 'session', 'provider' => 'users'],"));
  change(t, provider, (text) => text.replace(routes, "Broadcast::routes(['middleware' => ['web']]);"));
  change(t, 'routes/web.php', (text) => `${text}\nRoute::get('/as-ana', function () { Illuminate\\Support\\Facades\\Auth::guard('web')->loginUsingId(1); return view('chat'); });\n`);
  const page = await fetch(`${URL_OF_LARAVEL}/as-ana`);
  const cookies = page.headers.getSetCookie().map((it) => it.split(';')[0]).join('; ');
  assertFine(await doctor('--header', `Cookie: ${cookies}`, '--channel', 'private-App.Models.User.1'), LOOKED_AT);
  assertFirst(await doctor('--header', `Cookie: ${cookies}`, '--channel', 'private-App.Models.User.2'), { check: 'auth-endpoint', text: /403: this user may not join/, fix: /routes\/channels\.php/ });
});

test('a page instead of JSON answers', async (t) => {
  const { doctor } = await project(t);
  change(t, 'routes/web.php', (text) => `${text}\nRoute::any('/{any}', fn () => view('chat'))->where('any', '.*');\n`);
  assertFirst(await doctor('--auth', `${URL_OF_LARAVEL}/broadcasting/auth`), { check: 'auth-endpoint', text: /answers 200, and not with JSON/, fix: /route:list/ });
});

test('a page of another host may not ask', async (t) => {
  const { doctor } = await project(t);
  change(t, 'config/cors.php', (text) => text.replace("'api/*'", "'other/*'"));
  assertFirst(await doctor('--page', 'http://shop.example'), { check: 'cors', text: /preflight of a page of http:\/\/shop\.example/, fix: /'api\/broadcasting\/auth' to paths/ });
});

test('nobody works the queue', async (t) => {
  const { doctor } = await project(t);
  const then = Math.floor(Date.now() / 1000) - 300;
  await application.sql(`insert into jobs (queue, payload, attempts, available_at, created_at) values ('default', '{}', 0, ${then}, ${then})`);
  t.after(() => application.sql('delete from jobs'));
  assertFirst(await doctor(), { check: 'queue', text: /nobody works the queue "default".*1 jobs wait, the oldest for 30\d s/, fix: /queue:work database --queue=default/ });
});

test('the database of the queue does not answer', async (t) => {
  const { doctor } = await project(t);
  const silent = createServer(() => {});
  await new Promise((resolve) => silent.listen(0, '127.0.0.1', resolve));
  t.after(() => silent.close());
  change(t, 'config/queue.php', (text) => text.replace("'driver' => 'database',", "'driver' => 'database', 'connection' => 'silent',"));
  const connection = `'silent' => ['driver' => 'mysql', 'host' => '127.0.0.1', 'port' => ${silent.address().port}, 'database' => 'd', 'username' => 'u', 'password' => 'p'],`;
  change(t, 'config/database.php', (text) => text.replace("'connections' => [", `'connections' => [ ${connection}`));
  assertFirst(await doctor(), { check: 'queue', level: 'warning', text: /cannot be asked: (?!could not find driver)/, fix: /QUEUE_CONNECTION/ });
});

test('the queue cannot be asked', async (t) => {
  const { doctor } = await project(t);
  change(t, 'config/queue.php', (text) => text.replace("'table' => 'jobs'", "'table' => 'no_jobs'"));
  assertFirst(await doctor(), { check: 'queue', level: 'warning', text: /cannot be asked: .*no_jobs/, fix: /QUEUE_CONNECTION/ });
});

test('nginx gives /apps to Laravel', async (t) => {
  const { setup, doctor, port } = await project(t);
  const front = await setup.nginx(`server { listen 127.0.0.1:{port}; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;
    location /app/ { proxy_pass http://127.0.0.1:${port}; } location / { proxy_pass ${URL_OF_LARAVEL}; } }`);
  application.set({ REVERB_PORT: front });
  assertFirst(await doctor(), { check: 'path', text: /404 to GET \/apps\/my-app-id\/channels, by the application/, fix: /location \/apps\/ of its own/ });
});
