// A Redis of the test's own.

import { directory, freePort, run } from './program.mjs';

/** One that keeps nothing and is killed after the test. */
export async function startRedis(t) {
  const port = await freePort();
  const args = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'];
  await run(t, 'redis-server', args, { cwd: directory(t), env: { PATH: process.env.PATH } }).said(
    /Ready to accept connections/,
  );
  return { port };
}
