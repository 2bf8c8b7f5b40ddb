// Programs that a test starts, which end with it.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { within } from './wait.mjs';

// No program and no directory outlives the tests, not even when the runner gives up on
// a file: it sends SIGTERM, which by default ends a process without its 'exit' event.
const running = new Set();
const directories = new Set();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
  for (const directory of directories) rmSync(directory, { recursive: true, force: true });
});
process.once('SIGTERM', () => process.exit(143));

/** A directory that is gone after the test. */
export function directory(t) {
  const made = mkdtempSync(path.join(tmpdir(), 'resound-webhooks-'));
  directories.add(made);
  t.after(() => {
    rmSync(made, { recursive: true, force: true });
    directories.delete(made);
  });
  return made;
}

/** A port that nobody listens on. */
export async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** A program, with no environment but `env`, that is killed after the test. */
export function run(t, command, args, { cwd, env = {} } = {}) {
  const child = spawn(command, args, { cwd, env, stdio: ['ignore', 'pipe', 'pipe'] });
  const name = path.basename(command);
  const program = {
    child,
    /** All that it has written to its standard output, and what to standard error. */
    out: '',
    err: '',
    /** The whole lines of its standard output. */
    get lines() {
      return program.out.split('\n').slice(0, -1);
    },
    /** Its exit status, or the signal that ended it. */
    ended: new Promise((resolve, reject) => {
      child.once('error', (error) => reject(new Error(`cannot run ${command}: ${error.message}`)));
      child.once('close', (code, signal) => {
        running.delete(child);
        resolve(code ?? signal);
      });
    }),
    /** Waits until it has written this to one of both; the match. */
    said(pattern) {
      const found = new Promise((resolve, reject) => {
        const look = () => {
          const match = pattern.exec(program.out) ?? pattern.exec(program.err);
          if (match) resolve(match);
        };
        child.stdout.on('data', look);
        child.stderr.on('data', look);
        look();
        program.ended.then(
          (status) => reject(new Error(`${name} ended with ${status}:\n${program.err}${program.out}`)),
          reject,
        );
      });
      return within(`${name} to say ${pattern}`, found, 20_000);
    },
    /** Ends it without a chance to do anything. */
    async kill() {
      child.kill('SIGKILL');
      await within(`${name} to be killed`, program.ended);
    },
    /** Stops it as a service manager does, and expects a clean end. */
    async stop(limitMs = 30_000) {
      child.kill('SIGTERM');
      const status = await within(`${name} to end`, program.ended, limitMs);
      assert.equal(status, 0, `exit status after SIGTERM:\n${program.err}`);
    },
  };
  running.add(child);
  child.stdout.setEncoding('utf8').on('data', (text) => (program.out += text));
  child.stderr.setEncoding('utf8').on('data', (text) => (program.err += text));
  // Whoever waits for it hears of it; nobody has to.
  program.ended.catch(() => running.delete(child));
  t.after(async () => {
    child.kill('SIGKILL');
    await program.ended.catch(() => {});
  });
  return program;
}
