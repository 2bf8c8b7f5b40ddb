// `resound import` asks this Laravel, and what it writes means what Reverb did: the recordings of
// a real Reverb are played against it.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { appendFileSync, copyFileSync, existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { test } from '../clients/support/test.mjs';
import { install } from './support/application.mjs';

const run = promisify(execFile);
const here = fileURLToPath(new URL('.', import.meta.url));
const contract = path.join(here, '../contract/run');
// The database makes no difference.
const skip = (process.env.DB ?? 'sqlite') !== 'sqlite';

/** A project with config/reverb.php. */
async function project(t) {
  const application = await install();
  t.after(() => application.stop());
  copyFileSync(path.join(here, 'support/reverb.php'), path.join(application.folder, 'config/reverb.php'));
  return application;
}

/** Exit code, standard output and standard error of `resound import`, with an environment as a person has it. */
async function resound(application, ...args) {
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(REVERB|RESOUND)_/.test(name)));
  try {
    const { stdout, stderr } = await run(process.env.RESOUND_BIN, args, { cwd: application.folder, env });
    return { code: 0, stdout, stderr };
  } catch ({ code, stdout, stderr }) {
    return { code, stdout, stderr };
  }
}

/** Puts PHP at the end of the project's configuration, before what it returns. */
function change(application, code) {
  const file = path.join(application.folder, 'config/reverb.php');
  const text = readFileSync(file, 'utf8').replace(/^return \[/m, '$config = [');
  writeFileSync(file, `${text}\n${code}\nreturn $config;\n`);
}

test('a project says what its files mean, with config:cache and without', { skip }, async (t) => {
  const application = await project(t);
  change(
    application,
    `$second = ['app_id' => 2, 'key' => 'second', 'secret' => 's2', 'allowed_origins' => ['b.example']];
     $config['apps']['apps'][] = $second + $config['apps']['apps'][0];
     $config['apps']['apps'][0]['allowed_origins'] = ['*.a.example'];`,
  );
  const { code, stdout, stderr } = await resound(application, 'import', '--stdout');
  assert.equal(code, 0, stderr);
  const expected = [/allowed_origins = \["\*\.a\.example"\]/, /id = "2"\nkey = "second"\nsecret = "s2"\nallowed_origins = \["b\.example"\]/];
  for (const it of expected) assert.match(stdout, it);
  await application.artisan('config:cache');
  // Not read any more.
  appendFileSync(application.envFile, 'REVERB_APP_PING_INTERVAL=5\n');
  const cached = await resound(application, 'import', '--stdout');
  assert.equal(cached.stdout, stdout);
  await application.artisan('config:clear');
  assert.match((await resound(application, 'import', '--stdout')).stdout, /ping_interval = 5/);
  assert.deepEqual(await resound(application, 'import'), { code: 0, stdout: 'resound.toml written\n', stderr });
  assert.equal(statSync(path.join(application.folder, 'resound.toml')).mode & 0o777, 0o600);
  const checked = await resound(application, 'check', '--config', 'resound.toml', '--env-file', '/dev/null');
  assert.match(checked.stdout, /2 applications/);
});

test('what a project prints while it boots is not taken for its configuration', { skip }, async (t) => {
  const application = await project(t);
  change(application, 'echo "hello"; trigger_error("old", E_USER_DEPRECATED); register_shutdown_function(fn () => print("bye"));');
  const { code, stdout, stderr } = await resound(application, 'import', '--json');
  assert.equal(code, 0, stderr);
  const document = JSON.parse(stdout);
  assert.equal(document.format, 1);
  assert.equal(document.reverb.apps.apps[0].app_id, 'my-app-id');
  assert.deepEqual(Object.keys(document.broadcasting.connections), ['reverb']);
});

test('a project that cannot be asked says why, and nothing is written', { skip }, async (t) => {
  const application = await project(t);
  const refused = async (told, ...args) => {
    const { code, stdout, stderr } = await resound(application, 'import', ...args);
    assert.deepEqual({ code, stdout }, { code: 64, stdout: '' }, stderr);
    assert.match(stderr, told);
    assert.ok(!existsSync(path.join(application.folder, 'resound.toml')));
  };
  change(application, 'throw new RuntimeException("no such host: vault");');
  await refused(/does not boot \(PHP ended with exit status: 255\):\n.*no such host: vault/s);
  change(application, 'this is no PHP');
  await refused(/does not boot.*\n.*syntax error/s);
  rmSync(path.join(application.folder, 'config/reverb.php'));
  await refused(/the project has no config\/reverb.php and no config\/websockets.php/);
  rmSync(path.join(application.folder, 'vendor/autoload.php'));
  await refused(/has no vendor\/autoload.php \(composer install\)/);
  rmSync(path.join(application.folder, 'artisan'));
  await refused(/is no Laravel project: it has no artisan/);
});

test('what is imported answers as Reverb did, but for what docs/differences.md says', { skip, timeout: 120_000 }, async (t) => {
  const application = await project(t);
  const env = { ...process.env, CONTRACT_PROJECT: application.folder };
  const { stdout } = await run('python3', [contract], { env, maxBuffer: 1 << 24 }).catch((error) => error);
  assert.match(stdout, /\b\d{3} passed, 0 failed\n$/, stdout);
});
