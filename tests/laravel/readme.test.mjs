// The example's README, pasted into terminals from top to bottom.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { listen, load, open as openEcho } from '../clients/support/echo.mjs';
import { needPort } from '../clients/support/server.mjs';
import { test } from '../clients/support/test.mjs';
import { EXAMPLE, URL_OF_LARAVEL, afterComposer } from './support/application.mjs';

const run = promisify(execFile);

test('its commands bring a message to Echo', async (t) => {
  const readme = readFileSync(path.join(EXAMPLE, 'README.md'), 'utf8');
  const [toInstall, serve, work, resound, logIn, send, ...more] = [...readme.matchAll(/^```bash\n(.*?)^```$/gms)].map(
    ([, commands]) => commands.trim(),
  );
  assert.deepEqual(more, []);
  await needPort(8000);
  await needPort(8080);

  const application = afterComposer();
  t.after(() => application.stop());
  const paste = async (commands) => (await run('bash', ['-ec', commands], { cwd: application.folder })).stdout;

  // Composer has run, or something stands for it: see run.
  assert.match(toInstall, /^composer install\n/);
  await paste(toInstall.replace('composer install\n', ''));
  const PATH = `${path.dirname(process.env.RESOUND_BIN)}:${process.env.PATH}`;
  for (const command of [serve, work, resound]) application.start(command, { PATH });
  await application.isServed();

  const { token, user } = JSON.parse(await paste(logIn));
  assert.equal(user.name, 'Ana');
  const auth = { url: `${URL_OF_LARAVEL}/api/broadcasting/auth` };
  const echo = openEcho(t, await load('echo-2'), { broadcaster: 'reverb', port: 8080, auth, token });
  const messages = await listen(echo.private('chat.1'));
  const answer = JSON.parse(await paste(send.replace('YOUR_SANCTUM_TOKEN_HERE', token)));
  assert.equal(answer.data.content, 'Hello from curl!');
  assert.deepEqual((await messages.next()).message, answer.data);
});
