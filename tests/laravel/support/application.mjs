// examples/laravel-chat as its README installs it, in a folder of the test's own: its
// files unchanged, a vendor/ beside them, its .env from its .env.example.

import { execFile, spawn } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { needPort } from '../../clients/support/server.mjs';
import { within } from '../../clients/support/wait.mjs';

const run = promisify(execFile);
const here = fileURLToPath(new URL('.', import.meta.url));
const debian = path.join(here, '../debian');

export const EXAMPLE = path.join(here, '../../../examples/laravel-chat');
export const URL_OF_LARAVEL = 'http://localhost:8000';

// Nothing that was started outlives the tests; see clients/support/server.mjs. What
// runs is killed before its folder goes.
const kills = new Set();
const folders = new Set();
const remove = (folder) => rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
process.on('exit', () => {
  kills.forEach((kill) => kill());
  folders.forEach(remove);
});

/** Installed, migrated and seeded; the database is the one that `DB` names. */
export async function install() {
  const application = afterComposer();
  const { folder } = application;
  cpSync(path.join(folder, '.env.example'), application.envFile);
  await application.chooseDatabase();
  await application.artisan('key:generate');
  await application.artisan('migrate', '--seed', '--force');
  return application;
}

/** The example after `composer install`. */
export function afterComposer() {
  const folder = mkdtempSync(path.join(tmpdir(), 'laravel-chat-'));
  folders.add(folder);
  cpSync(EXAMPLE, folder, { recursive: true, filter: (file) => !/\/(vendor|\.env|database\.sqlite)$/.test(file) });
  addVendor(folder);
  return new Application(folder);
}

/** What Composer installed, or Debian's Laravel with what stands for the packages it lacks. */
function addVendor(folder) {
  const vendor = path.join(folder, 'vendor');
  if (process.env.LARAVEL_VENDOR) {
    // A copy: Composer's autoloader looks for the application beside itself.
    cpSync(process.env.LARAVEL_VENDOR, vendor, { recursive: true, verbatimSymlinks: true });
    return;
  }
  mkdirSync(path.join(vendor, 'composer'), { recursive: true });
  const autoload = `<?php\n\ndefine('APP_VENDOR', __DIR__);\nrequire '${debian}/autoload.php';\n`;
  writeFileSync(path.join(vendor, 'autoload.php'), autoload);
  const providers = ['Laravel\\Sanctum\\SanctumServiceProvider', 'Resound\\LaravelTests\\DebianServiceProvider'];
  const packages = [{ name: 'laravel/sanctum', extra: { laravel: { providers } } }];
  writeFileSync(path.join(vendor, 'composer/installed.json'), JSON.stringify({ packages }));
  cpSync(path.join(debian, 'server.php'), path.join(folder, 'server.php'));
}

class Application {
  #running = new Set();
  #served;

  constructor(folder) {
    this.folder = folder;
    this.envFile = path.join(folder, '.env');
  }

  /** `php artisan serve` on its usual port, which the document's page names. */
  async serve() {
    await needPort(8000);
    // More than one request at a time, as in production; and it is not to restart when
    // a test changes .env.
    this.#served = this.start('php artisan serve --no-reload', { PHP_CLI_SERVER_WORKERS: '4' });
    await this.isServed();
  }

  /** With what .env says now. */
  async serveAnew() {
    await this.#served.stop();
    await within('the port of Laravel to be free', refusing(URL_OF_LARAVEL));
    await this.serve();
  }

  isServed() {
    return within('Laravel to serve', answering(URL_OF_LARAVEL), 20_000);
  }

  /** `php artisan queue:work`, which ends with the application unless it is stopped before. */
  startWorker() {
    return this.start('php artisan queue:work --sleep=0.1');
  }

  /** What an artisan command prints. */
  async artisan(...args) {
    const { stdout } = await run('php', ['artisan', ...args], { cwd: this.folder });
    return stdout;
  }

  /** The rows of a select, or how many a statement changed. */
  async sql(statement) {
    const { stdout } = await run('php', [path.join(here, 'sql.php'), statement], { cwd: this.folder });
    return JSON.parse(stdout);
  }

  /** How many rows a table has. */
  async count(table) {
    const [{ n }] = await this.sql(`select count(*) as n from ${table}`);
    return n;
  }

  /** Stops what it started, and is gone. */
  async stop() {
    await Promise.all([...this.#running].map((stop) => stop()));
    remove(this.folder);
    folders.delete(this.folder);
  }

  /** Runs a command in the application's folder, in the background. */
  start(command, env = {}) {
    const [program, ...args] = command.split(' ');
    // In a group of its own: `serve` has children that its signals do not reach.
    const child = spawn(program, args, {
      cwd: this.folder,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: true,
    });
    const output = [];
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => output.push(text));
    }
    const ended = new Promise((resolve) => child.once('exit', resolve));
    const kill = (signal) => {
      try {
        process.kill(-child.pid, signal);
      } catch {
        // It has ended.
      }
    };
    const onExit = () => kill('SIGKILL');
    kills.add(onExit);
    const stop = async () => {
      this.#running.delete(stop);
      kill('SIGTERM');
      await within(`${command} to end`, ended);
      kill('SIGKILL');
      kills.delete(onExit);
    };
    this.#running.add(stop);
    return { stop, output: () => output.join('') };
  }

  async chooseDatabase() {
    const { DB = 'sqlite', DB_SOCKET } = process.env;
    if (DB === 'sqlite') {
      writeFileSync(path.join(this.folder, 'database/database.sqlite'), '');
      return;
    }
    const database = path.basename(this.folder).replace(/\W/g, '_');
    const asRoot = (statement) => run('mariadb', ['--no-defaults', `--socket=${DB_SOCKET}`, '--user=root', '--execute', statement]);
    await asRoot(`create database ${database}`);
    this.set({
      DB_CONNECTION: 'mysql',
      DB_SOCKET,
      DB_DATABASE: database,
      DB_USERNAME: 'root',
    });
  }

  /** Changes lines of .env, or adds them. */
  set(values) {
    let text = readFileSync(this.envFile, 'utf8');
    for (const [key, value] of Object.entries(values)) {
      const line = `${key}=${value}`;
      const old = new RegExp(`^${key}=.*$`, 'm');
      text = old.test(text) ? text.replace(old, line) : `${text}${line}\n`;
    }
    writeFileSync(this.envFile, text);
  }
}

/** Is done when nobody listens: its workers are gone a moment after it. */
async function refusing(url) {
  for (;;) {
    try {
      await fetch(url, { signal: AbortSignal.timeout(1000) });
    } catch ({ cause }) {
      if (cause?.code === 'ECONNREFUSED') return;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function answering(url) {
  for (;;) {
    try {
      await fetch(url);
      return;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}
