// Somebody who uses the API with Postman, or with a page of their own.

import assert from 'node:assert/strict';
import { URL_OF_LARAVEL } from './application.mjs';

/** One of the seeder's people, logged in. */
export async function logIn(name) {
  const body = { email: `${name.toLowerCase()}@example.test`, password: 'password' };
  const { status, json } = await new Person().post('/api/auth/login', body);
  assert.equal(status, 200, `${name} logs in`);
  assert.equal(json.user.name, name);
  return new Person(json.token, json.user.id);
}

export class Person {
  constructor(token, id) {
    this.token = token;
    this.id = id;
  }

  get = (path) => this.#request('GET', path);
  post = (path, body = {}, headers = {}) => this.#request('POST', path, body, headers);
  postForm = (path, text) => this.#request('POST', path, new URLSearchParams(), {}, text);
  patch = (path, body) => this.#request('PATCH', path, body);
  delete = (path) => this.#request('DELETE', path);

  /** Asks for a channel's authorization as pusher-js does: with a form. */
  authorize(channel, socketId = '1234.5678') {
    const form = new URLSearchParams({ socket_id: socketId, channel_name: channel });
    return this.#request('POST', '/api/broadcasting/auth', form);
  }

  /** Sends a message and returns it as it was stored. */
  async say(chatId, content, { socketId } = {}) {
    const headers = socketId ? { 'X-Socket-ID': socketId } : {};
    const { status, json } = await this.post(`/api/chat/rooms/${chatId}/messages`, { content }, headers);
    assert.equal(status, 201, `"${content}" is stored`);
    return json.data;
  }

  async #request(method, path, body, headers = {}, form = undefined) {
    const isForm = body instanceof URLSearchParams;
    const response = await fetch(new URL(path, URL_OF_LARAVEL), {
      method,
      headers: {
        Accept: 'application/json',
        ...(this.token && { Authorization: `Bearer ${this.token}` }),
        ...(body && !isForm && { 'Content-Type': 'application/json' }),
        ...(form && { 'Content-Type': 'application/x-www-form-urlencoded' }),
        ...headers,
      },
      body: form ?? (isForm ? body : body && JSON.stringify(body)),
    });
    const text = await response.text();
    return { status: response.status, json: text === '' ? undefined : JSON.parse(text) };
  }
}
