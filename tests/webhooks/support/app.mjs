// The application whose server is tested, and its back end.

import { createHmac } from 'node:crypto';
import Pusher from 'pusher';

// Pusher's SDK for Python takes no id but a number.
export const APP = { id: '123456', key: 'my-app-key', secret: 'my-app-secret' };

const { id: appId, key, secret } = APP;

/** Pusher's server SDK: signs subscriptions and verifies webhooks. */
export const sdk = new Pusher({ appId, key, secret, host: '127.0.0.1', useTLS: false });

/** What a body is signed with, as Pusher documents it. */
export const signature = (body, secret = APP.secret) => createHmac('sha256', secret).update(body).digest('hex');
