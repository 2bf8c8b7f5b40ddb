// Starts and stops the Resound binary.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { APP } from './app.mjs';
import { within } from './wait.mjs';

const built = fileURLToPath(new URL('../../../target/release/resound', import.meta.url));
const binary = path.resolve(process.env.RESOUND_BIN || built);

// No server and no directory outlives the tests, not even when the runner gives up on
// a file: it sends SIGTERM, which by default ends a process without its 'exit' event.
const running = new Map();
process.on('exit', () => {
  for (const [child, directory] of running) {
    child.kill('SIGKILL');
    rmSync(directory, { recursive: true });
  }
});
process.once('SIGTERM', () => process.exit(143));

/** `resound start` with the chat module's application. `env` has further settings. */
export function startServer({ port = 0, env = {} } = {}) {
  const { id, key, secret } = APP;
  const app = ['--app-id', id, '--app-key', key, '--app-secret', secret];
  return start(['start', '--host', '127.0.0.1', '--port', String(port), ...app], env);
}

/** `resound start` as a Laravel application's README has it: settings from its .env alone. */
export async function startFromEnvFile(file) {
  await needPort(8080);
  return start(['start', '--env-file', file], {});
}

/** `resound start` in a directory with this .env, which can be changed. */
export function startWithDotenv(text) {
  return start(['start', '--host', '127.0.0.1', '--port', '0', '--env-file', '.env'], {}, text);
}

/** `resound demo`. */
export function startDemo() {
  return start(['demo', '--port', '0'], {});
}

/** Fails, saying so, if a port that a test cannot choose is taken. */
export async function needPort(port) {
  const probe = createServer();
  await new Promise((resolve, reject) => {
    probe.once('error', ({ code }) =>
      reject(new Error(`port ${port} is not free (${code}); the chat module's page names it, so free it`)),
    );
    probe.listen(port, '127.0.0.1', resolve);
  });
  await new Promise((resolve) => probe.close(resolve));
}

async function start(args, env, dotenv) {
  // An empty directory and environment: no setting of this machine reaches the server.
  const directory = mkdtempSync(path.join(tmpdir(), 'resound-clients-'));
  const writeDotenv = (text) => writeFileSync(path.join(directory, '.env'), text);
  if (dotenv) writeDotenv(dotenv);
  const child = spawn(binary, args, { cwd: directory, env, stdio: ['ignore', 'ignore', 'pipe'] });
  running.set(child, directory);
  const ended = new Promise((resolve) => {
    child.once('exit', (code, signal) => {
      running.delete(child);
      rmSync(directory, { recursive: true });
      resolve(code ?? signal);
    });
  });
  let log = '';
  const listening = new Promise((resolve, reject) => {
    child.stderr.setEncoding('utf8').on('data', (text) => {
      log += text;
      const line = /Starting (?:secure )?server on [\d.]+:(\d+).*\n/.exec(log);
      if (line) resolve(Number(line[1]));
    });
    child.once('error', (error) => reject(new Error(`cannot run ${binary}: ${error.message}`)));
    ended.then((status) => reject(new Error(`resound ended with ${status} at its start:\n${log}`)));
  });
  const port = await within('the server to listen', listening);
  return {
    port,
    writeDotenv,
    /** Has it read its settings anew, which must not be refused. */
    async reload() {
      const before = log.length;
      child.kill('SIGHUP');
      const reloaded = (async () => {
        while (!/settings reloaded|reload: /.test(log.slice(before))) {
          await new Promise((resolve) => setTimeout(resolve, 10));
        }
      })();
      await within('the reload', reloaded);
      assert.doesNotMatch(log.slice(before), /reload: /);
    },
    /** Stops it as a service manager does, and expects a clean end. */
    async stop() {
      child.kill('SIGTERM');
      const status = await within('the server to end', ended);
      assert.equal(status, 0, 'exit status after SIGTERM');
    },
  };
}
