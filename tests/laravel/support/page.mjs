// The chat's page in somebody's browser.

import { URL_OF_LARAVEL } from './application.mjs';
import { openWithScripts } from './cdn.mjs';

/** Logged in, connected, and with a chat open if one is named. */
export async function openChat(t, browser, name, chat, viewport) {
  const page = await openWithScripts(t, browser);
  page.frames = [];
  page.on('websocket', (socket) => socket.on('framereceived', ({ payload }) => page.frames.push(payload)));
  if (viewport) await page.setViewportSize(viewport);
  await page.goto(URL_OF_LARAVEL);
  await page.fill('#email', `${name.toLowerCase()}@example.test`);
  await page.fill('#password', 'password');
  await page.press('#password', 'Enter');
  await page.locator('#connection[data-state=connected]').waitFor({ state: 'attached' });
  if (chat) await enter(page, chat);
  return page;
}

export async function enter(page, chat) {
  await page.locator(`#rooms [data-room-id="${chat}"]`).click();
  await page.locator('#messages .message').first().waitFor();
}
