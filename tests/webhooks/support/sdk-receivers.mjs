// Receivers as applications have them, with the SDKs of Node, PHP and Python. Each answers
// 200 to what its SDK accepts and 401 to what it refuses, and has the `events` of the former.

import { fileURLToPath } from 'node:url';
import { APP } from './app.mjs';
import { run } from './program.mjs';
import { startReceiver } from './receiver.mjs';

const file = (name) => fileURLToPath(new URL(name, import.meta.url));

export const SDKS = {
  Node: startReceiver,
  PHP: (t) => start(t, 'php', ['-S', '127.0.0.1:0', file('receiver.php')]),
  Python: (t) => start(t, 'python3', [file('receiver.py')]),
};

async function start(t, command, args) {
  const { PATH, PUSHER_SDK_AUTOLOAD, PYTHONPATH } = process.env;
  const env = { PATH, APP_ID: APP.id, APP_KEY: APP.key, APP_SECRET: APP.secret };
  if (PUSHER_SDK_AUTOLOAD) env.PUSHER_SDK_AUTOLOAD = PUSHER_SDK_AUTOLOAD;
  if (PYTHONPATH) env.PYTHONPATH = PYTHONPATH;
  const program = run(t, command, args, { env });
  const [, origin] = await program.said(/\((http:\/\/127\.0\.0\.1:\d+)\) started/);
  return {
    url: `${origin}/webhooks`,
    get events() {
      return program.lines.flatMap((line) => JSON.parse(line).events);
    },
  };
}
