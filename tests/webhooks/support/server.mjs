// Starts the Resound binary, and its `webhooks tail`.

import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { APP } from './app.mjs';
import { directory, run } from './program.mjs';

const built = fileURLToPath(new URL('../../../target/release/resound', import.meta.url));
const binary = path.resolve(process.env.RESOUND_BIN || built);

/** Every kind of event. */
export const ALL_EVENTS = [
  'channel_occupied',
  'channel_vacated',
  'member_added',
  'member_removed',
  'client_event',
  'cache_miss',
  'subscription_count',
  'connection_established',
  'connection_closed',
  'subscription_refused',
].join();

/**
 * A server that is killed after the test. It tells `receiver`, or those of the settings file
 * that `file` is the text of. `env` has further settings.
 */
export async function startServer(t, { receiver, file, env = {} } = {}) {
  // An empty directory and environment: no setting of this machine reaches the server.
  const cwd = directory(t);
  const socket = path.join(cwd, 'control.sock');
  const settings = {
    REVERB_SERVER_HOST: '127.0.0.1',
    REVERB_SERVER_PORT: '0',
    RESOUND_METRICS_PORT: 'off',
    RESOUND_CONTROL_SOCKET: socket,
    RESOUND_WEBHOOK_ALLOW_LOCAL: 'true',
  };
  const args = ['start'];
  if (file === undefined) {
    settings.REVERB_APP_ID = APP.id;
    settings.REVERB_APP_KEY = APP.key;
    settings.REVERB_APP_SECRET = APP.secret;
  } else {
    writeFileSync(path.join(cwd, 'resound.toml'), file);
    args.push('--config', 'resound.toml');
  }
  if (receiver) settings.RESOUND_WEBHOOK_URL = receiver.url;
  const program = run(t, binary, args, { cwd, env: { ...settings, ...env } });
  const [, port] = await program.said(/Starting server on [\d.]+:(\d+).*\n/);
  return {
    port: Number(port),
    kill: program.kill,
    stop: program.stop,
    /** `resound webhooks tail`, of what was sent already and what will be. */
    tail: (...flags) => {
      const command = ['webhooks', 'tail', '--lines', '1000', ...flags];
      return run(t, binary, command, { cwd, env: { RESOUND_CONTROL_SOCKET: socket } });
    },
  };
}

/** A settings file of the application with these webhooks. */
export function settingsFile(webhooks) {
  // What JSON has for texts and lists of them is TOML, too.
  const text = JSON.stringify;
  const lines = ['[[apps]]', `id = ${text(APP.id)}`, `key = ${text(APP.key)}`, `secret = ${text(APP.secret)}`];
  for (const { url, events, channels, headers } of webhooks) {
    lines.push('', '[[apps.webhooks]]', `url = ${text(url)}`);
    if (events) lines.push(`events = ${text(events)}`);
    if (channels) lines.push(`channels = ${text(channels)}`);
    if (headers) {
      const pairs = Object.entries(headers).map(([name, value]) => `${text(name)} = ${text(value)}`);
      lines.push(`headers = { ${pairs.join(', ')} }`);
    }
  }
  return `${lines.join('\n')}\n`;
}
