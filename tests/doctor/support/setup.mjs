// A set-up as people have them, and what `resound doctor` says of it.

import assert from 'node:assert/strict';
import { execFile, execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { APP } from '../../clients/support/app.mjs';
import { startServer } from '../../clients/support/server.mjs';
import { within } from '../../clients/support/wait.mjs';

const config = fileURLToPath(new URL('../../../config/', import.meta.url));

/** What was started and made for one test, which is gone after it. */
export class Setup {
  #stops = [];

  constructor(t) {
    this.folder = mkdtempSync(path.join(tmpdir(), 'resound-doctor-'));
    t.after(async () => {
      for (const stop of this.#stops.reverse()) await stop();
      rmSync(this.folder, { recursive: true, force: true });
    });
  }

  onEnd(stop) {
    this.#stops.push(stop);
  }

  /** Resound with the application of the chat module, and its port. */
  async server(env = {}, port = 0) {
    const server = await startServer({ env: { ...env, SSL_CERT_FILE: '' }, port });
    this.#stops.push(() => server.stop());
    return server.port;
  }

  /** A program that listens on a port, of which its arguments are made; its port. */
  async program(name, argumentsOf, env = {}) {
    const port = await freePort();
    const folder = path.join(this.folder, `${name}-${port}`);
    mkdirSync(folder);
    const child = spawn(name, argumentsOf({ port, folder }), { env: { PATH: process.env.PATH, HOME: folder, ...env }, stdio: ['ignore', 'pipe', 'pipe'] });
    let log = '';
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (log += text));
    const ended = new Promise((resolve) => child.once('close', resolve));
    const onExit = () => child.kill('SIGKILL');
    process.on('exit', onExit);
    this.#stops.push(async () => {
      child.kill('SIGTERM');
      setTimeout(onExit, 2000).unref();
      await within(`${name} to end`, ended);
      process.off('exit', onExit);
    });
    await Promise.race([
      within(`${name} to listen`, listening(port)),
      ended.then(() => assert.fail(`${name} ended:\n${log}`)),
    ]);
    return port;
  }

  /** nginx with these servers, which `{port}` and `{folder}` stand in; its port. */
  nginx(servers) {
    return this.program('nginx', ({ port, folder }) => {
      const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${folder}/${name};`);
      const text = `daemon off; master_process off; error_log stderr warn; pid ${folder}/pid;
        events { worker_connections 256; }
        http { access_log off; ${temporary.join(' ')} ${filled(servers, port, folder)} }`;
      return ['-c', written(folder, 'nginx.conf', text)];
    });
  }

  /** Something in between that holds back what sockets get; its port. */
  async delaying(to, milliseconds) {
    const proxy = createServer((client) => {
      const server = connect(to, '127.0.0.1');
      client.once('data', (head) => {
        const wait = head.toString().startsWith('GET /app/') ? milliseconds : 0;
        server.on('data', (bytes) => setTimeout(() => client.write(bytes), wait));
        server.write(head);
        client.pipe(server);
      });
      for (const [one, other] of [[client, server], [server, client]]) one.on('close', () => other.destroy()).on('error', () => {});
    });
    await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
    this.#stops.push(() => proxy.close());
    return proxy.address().port;
  }

  /** HAProxy with this file. */
  haproxy(text) {
    return this.program('haproxy', ({ port, folder }) => ['-db', '-f', written(folder, 'haproxy.cfg', filled(text, port, folder))]);
  }

  /** Apache with these lines in its host. */
  async apache(lines) {
    const port = await this.program('apache2', ({ port, folder }) => {
      const modules = ['mpm_event', 'authz_core', 'alias', 'ssl', 'proxy', 'proxy_http'].map(
        (name) => `LoadModule ${name}_module /usr/lib/apache2/modules/mod_${name}.so`,
      );
      const user = process.getuid() === 0 ? 'User www-data\nGroup www-data' : '';
      const text = `${modules.join('\n')}\n${user}\nServerRoot ${folder}\nServerName localhost\nDefaultRuntimeDir ${folder}
PidFile ${folder}/pid\nErrorLog ${folder}/error.log\nListen 127.0.0.1:${port}\n${filled(lines, port, folder)}\n`;
      return ['-X', '-f', written(folder, 'apache.conf', text)];
    });
    // It opens its port before it reads its configuration a second time.
    const pid = path.join(this.folder, `apache2-${port}`, 'pid');
    const ready = (async () => {
      while (!existsSync(pid)) await new Promise((resolve) => setTimeout(resolve, 20));
      await listening(port);
    })();
    await within('Apache to listen again', ready);
    return port;
  }

  /**
   * A certificate for localhost, or for other names, by an authority of the test's; `from` is a
   * date before which it was made, for 30 days.
   */
  certificate({ name = 'localhost', from } = {}) {
    const file = (end) => path.join(this.folder, `${name}${end}`);
    const openssl = (...args) => {
      const command = from ? ['faketime', from, 'openssl', ...args] : ['openssl', ...args];
      execFileSync(command[0], command.slice(1), { cwd: this.folder, stdio: 'pipe' });
    };
    const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
    openssl('req', '-x509', ...key, '-days', '9999', '-subj', '/CN=Test authority', '-keyout', file('.ca.key'), '-out', file('.ca'));
    openssl('req', ...key, '-subj', `/CN=${name}`, '-keyout', file('.key'), '-out', file('.csr'));
    writeFileSync(file('.ext'), `subjectAltName=DNS:${name}\nbasicConstraints=CA:FALSE\n`);
    const signed = ['-CA', file('.ca'), '-CAkey', file('.ca.key'), '-CAcreateserial', '-extfile', file('.ext'), '-days', '30'];
    openssl('x509', '-req', '-in', file('.csr'), ...signed, '-out', file('.pem'));
    writeFileSync(file('.both'), readFileSync(file('.pem'), 'utf8') + readFileSync(file('.key'), 'utf8'));
    return { authority: file('.ca'), cert: file('.pem'), key: file('.key'), both: file('.both') };
  }

  /** A .env with the application, and lines that it has more or instead. */
  dotenv(more = {}) {
    const { id, key, secret } = APP;
    const values = { REVERB_APP_ID: id, REVERB_APP_KEY: key, REVERB_APP_SECRET: secret, ...more, REVERB_SERVER_HOST: '127.0.0.1' };
    const lines = Object.entries(values).map(([name, value]) => `${name}=${value}\n`);
    writeFileSync(path.join(this.folder, '.env'), lines.join(''));
  }

  /** What `resound doctor` says, in the folder with the .env; `env` has what is set beside. */
  async doctor(args, { env = {}, before = [], cwd = this.folder } = {}) {
    if (cwd === this.folder && !existsSync(path.join(cwd, '.env'))) this.dotenv();
    const [program, ...rest] = [...before, process.env.RESOUND_BIN, 'doctor', '--json', ...args];
    const environment = { PATH: process.env.PATH, ...env };
    const { code, stdout, stderr } = await new Promise((resolve) => {
      execFile(program, rest, { cwd, env: environment }, (error, stdout, stderr) => resolve({ code: error?.code ?? 0, stdout, stderr }));
    });
    assert.ok([0, 1, 2].includes(code), `${code} ${stdout} ${stderr}`);
    return { code, ...JSON.parse(stdout) };
  }
}

/** The first finding is this one, an error, and says what to change. */
export function assertFirst({ code, worst, checks }, { check, text, fix, level = 'error' }) {
  const told = inLines(checks);
  const first = checks.find((it) => ['warning', 'error'].includes(it.level));
  assert.ok(first, `nothing was found: ${told}`);
  assert.deepEqual({ check: first.check, level: first.level }, { check, level }, told);
  assert.match(first.text, text, told);
  assert.match(first.fix, fix, told);
  const codes = { warning: 1, error: 2 };
  assert.equal(code, codes[worst], told);
  assert.ok(codes[worst] >= codes[level], told);
}

const inLines = (checks) => checks.map(({ level, check, text, fix = '' }) => `${level} ${check}: ${text} -> ${fix}`).join('\n');

/** Nothing is wrong, and all of this was looked at. */
export function assertFine({ code, checks }, lookedAt) {
  const told = inLines(checks);
  const wrong = checks.filter((it) => ['warning', 'error'].includes(it.level));
  assert.deepEqual(wrong, [], told);
  assert.equal(code, 0, told);
  const names = new Set(checks.filter((it) => it.level === 'ok').map((it) => it.check));
  assert.deepEqual(lookedAt.filter((name) => !names.has(name)), [], told);
}

/** A file of config/, with parts replaced that have to be there. */
export function shipped(name, replacements) {
  let text = readFileSync(path.join(config, name), 'utf8');
  for (const [part, by] of replacements) {
    assert.ok(text.includes(part), `${name} has no ${part}`);
    text = text.replaceAll(part, by);
  }
  return text;
}

export async function freePort() {
  const probe = createServer();
  await new Promise((resolve) => probe.listen(0, '127.0.0.1', resolve));
  const { port } = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  return port;
}

async function listening(port) {
  for (;;) {
    const socket = connect(port, '127.0.0.1');
    const isThere = await new Promise((resolve) => {
      socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    });
    socket.destroy();
    if (isThere) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function filled(text, port, folder) {
  return text.replaceAll('{port}', String(port)).replaceAll('{folder}', folder);
}

function written(folder, name, text) {
  const file = path.join(folder, name);
  writeFileSync(file, text);
  return file;
}
