// Proxies, certificates, addresses: each set-up is wrong in one way, which is told first.

import { connect, createServer } from 'node:net';
import { test } from '../clients/support/test.mjs';
import { Setup, assertFine, assertFirst, freePort, shipped } from './support/setup.mjs';

const upgrade = 'proxy_http_version 1.1; proxy_set_header Host $http_host; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;';
const site = (lines) => `server { listen 127.0.0.1:{port}; ${upgrade} ${lines} }`;
const local = (port) => `http://localhost:${port}`;
const LOOKED_AT = ['settings', 'connect', 'signature', 'body-size', 'socket', 'private-channel', 'delivery'];

/** A test of one set-up: `build` returns the doctor's arguments and options. */
function wrong(name, expected, build, options = {}) {
  test(name, options, async (t) => {
    const setup = new Setup(t);
    const { args, ...more } = await build(setup);
    assertFirst(await setup.doctor(args, more), expected);
  });
}

function right(name, build) {
  test(name, async (t) => {
    const setup = new Setup(t);
    const { args, lookedAt = LOOKED_AT, ...more } = await build(setup);
    assertFine(await setup.doctor(args, more), lookedAt);
  });
}

right('right: nginx of config/ with TLS', async (setup) => {
  const server = await setup.server({ REVERB_APP_ACTIVITY_TIMEOUT: '2' });
  const { cert, key, authority } = setup.certificate();
  const text = shipped('nginx/own-host.conf', [
    ['127.0.0.1:8080', `127.0.0.1:${server}`],
    ['/etc/letsencrypt/live/ws.example.com/fullchain.pem', cert],
    ['/etc/letsencrypt/live/ws.example.com/privkey.pem', key],
    ['listen [::]:80;', ''],
    ['listen [::]:443 ssl;', ''],
    ['listen 80;', `listen 127.0.0.1:${await freePort()};`],
    ['listen 443 ssl;', 'listen 127.0.0.1:{port} ssl;'],
    ['ws.example.com', 'localhost'],
    ['Host $host', 'Host $http_host'],
  ]);
  const port = await setup.nginx(text);
  return { args: [`https://localhost:${port}`, '--page', 'https://localhost', '--slow'], env: { SSL_CERT_FILE: authority }, lookedAt: [...LOOKED_AT, 'idle'] };
});

right('right: HAProxy of config/ with TLS', async (setup) => {
  const server = await setup.server();
  const { both, authority } = setup.certificate();
  const root = process.getuid() === 0 ? [] : [['    chroot /var/lib/haproxy\n', ''], ['    user haproxy\n', ''], ['    group haproxy\n', '']];
  const text = shipped('haproxy/haproxy.cfg', [
    ['127.0.0.1:8080', `127.0.0.1:${server}`],
    ['/etc/haproxy/ws.example.com.pem', both],
    ['maxconn 50000', 'maxconn 500'],
    ['bind :80\n', `bind 127.0.0.1:${await freePort()}\n`],
    ['bind :443 ', 'bind 127.0.0.1:{port} '],
    ...root,
  ]);
  const port = await setup.haproxy(text);
  return { args: [`https://localhost:${port}`], env: { SSL_CERT_FILE: authority } };
});

right('right: alone, where Laravel dials it', async (setup) => {
  const port = await setup.server();
  setup.dotenv({ REVERB_HOST: 'localhost', REVERB_PORT: port, REVERB_SCHEME: 'http', REVERB_SERVER_PORT: port });
  return { args: [], lookedAt: [...LOOKED_AT, 'machine'] };
});

wrong('nginx passes on /app only', { check: 'path', text: /404 to GET \/apps\/my-app-id\/channels, by nginx/, fix: /location ~ \^\/apps\/ \{ proxy_pass/ }, async (setup) => {
  const server = await setup.server();
  return { args: [local(await setup.nginx(site(`location /app/ { proxy_pass http://127.0.0.1:${server}; } location / { return 404; }`)))] };
});

wrong('nginx passes on /apps only', { check: 'path', text: /404 to the WebSocket handshake at \/app\/KEY, by nginx/, fix: /location ~ \^\/app\/ \{ proxy_pass/ }, async (setup) => {
  const server = await setup.server();
  return { args: [local(await setup.nginx(site(`location /apps/ { proxy_pass http://127.0.0.1:${server}; } location / { return 404; }`)))] };
});

wrong('nginx takes off the headers of the handshake', { check: 'upgrade', text: /426/, fix: /proxy_set_header Upgrade \$http_upgrade/ }, async (setup) => {
  const server = await setup.server();
  return { args: [local(await setup.nginx(`server { listen 127.0.0.1:{port}; location / { proxy_pass http://127.0.0.1:${server}; } }`))] };
});

wrong('nginx loses the query', { check: 'query', text: /auth_key is missing/, fix: /\$is_args\$args/ }, async (setup) => {
  const server = await setup.server();
  const lines = `location / { set $to http://127.0.0.1:${server}; proxy_pass $to$uri; }`;
  return { args: [local(await setup.nginx(site(lines)))] };
});

wrong('nginx changes the path', { check: 'path', text: /404: Not found\..*another path/, fix: /proxy_pass without a path/ }, async (setup) => {
  const server = await setup.server();
  const lines = `location / { proxy_pass http://127.0.0.1:${server}; } location /apps/ { proxy_pass http://127.0.0.1:${server}/api/apps/; }`;
  return { args: [local(await setup.nginx(site(lines)))] };
});

wrong('nginx has it below a path that nobody says', { check: 'prefix', text: /with \/ws in place of ""/, fix: /REVERB_SERVER_PATH.*wsPath/ }, async (setup) => {
  const server = await setup.server({ REVERB_SERVER_PATH: '/ws' });
  return { args: [local(await setup.nginx(site(`location /ws/ { proxy_pass http://127.0.0.1:${server}; } location / { return 404; }`)))] };
});

wrong('nginx lets through no large event', { check: 'body-size', text: /413 to POST/, fix: /client_max_body_size/ }, async (setup) => {
  const server = await setup.server();
  return { args: [local(await setup.nginx(site(`client_max_body_size 8k; location / { proxy_pass http://127.0.0.1:${server}; }`)))] };
});

wrong('nginx asks for a password', { check: 'password', text: /asks for a password/, fix: /auth_basic off/ }, async (setup) => {
  return { args: [local(await setup.nginx('server { listen 127.0.0.1:{port}; add_header WWW-Authenticate Basic always; return 401; }'))] };
});

wrong('nginx redirects to https', { check: 'redirect', text: /301 .* redirects to https:\/\//, fix: /dial that address itself/ }, async (setup) => {
  return { args: [local(await setup.nginx('server { listen 127.0.0.1:{port}; return 301 https://localhost$request_uri; }'))] };
});

wrong('nginx has another port behind it', { check: 'upstream', text: /502 .*, by nginx/, fix: /proxy_pass, upstream/ }, async (setup) => {
  return { args: [local(await setup.nginx(site(`location / { proxy_pass http://127.0.0.1:${await freePort()}; }`)))] };
});

wrong('nginx cuts off idle sockets', { check: 'idle', text: /cut off after [12] s/, fix: /proxy_read_timeout/ }, async (setup) => {
  const server = await setup.server({ REVERB_APP_ACTIVITY_TIMEOUT: '5' });
  return { args: [local(await setup.nginx(site(`proxy_read_timeout 1s; location / { proxy_pass http://127.0.0.1:${server}; }`))), '--slow'] };
});

wrong('HAProxy cuts off idle sockets', { check: 'idle', text: /cut off after [12] s/, fix: /timeout tunnel/ }, async (setup) => {
  const server = await setup.server({ REVERB_APP_ACTIVITY_TIMEOUT: '5' });
  const text = `defaults\n mode http\n timeout connect 5s\n timeout client 1s\n timeout server 1s\nfrontend f\n bind 127.0.0.1:{port}\n default_backend b\nbackend b\n server s 127.0.0.1:${server}\n`;
  return { args: [local(await setup.haproxy(text)), '--slow'] };
});

wrong('HAProxy finds no server', { check: 'upstream', text: /503 .*, by HAProxy/, fix: /server lines of the backend/ }, async (setup) => {
  const text = `defaults\n mode http\n timeout connect 1s\n timeout client 9s\n timeout server 9s\nfrontend f\n bind 127.0.0.1:{port}\n default_backend b\nbackend b\n server s 127.0.0.1:${await freePort()}\n`;
  return { args: [local(await setup.haproxy(text))] };
});

wrong('HAProxy has two servers that do not know each other', { check: 'delivery', text: /of 4 events .* [0-3] arrived/, fix: /REVERB_SCALING_ENABLED=true/ }, async (setup) => {
  const servers = [await setup.server(), await setup.server()];
  const lines = servers.map((port, at) => ` server s${at} 127.0.0.1:${port}\n`);
  const text = `defaults\n mode http\n timeout connect 1s\n timeout client 60s\n timeout server 60s\n timeout tunnel 60s\nfrontend f\n bind 127.0.0.1:{port}\n default_backend b\nbackend b\n balance roundrobin\n${lines.join('')}`;
  return { args: [local(await setup.haproxy(text)), '--timeout', '2'] };
});

wrong('Apache does not pass on the handshake', { check: 'upgrade', text: /426/, fix: /upgrade=websocket/ }, async (setup) => {
  const server = await setup.server();
  return { args: [local(await setup.apache(`ProxyPass "/app/" "http://127.0.0.1:${server}/app/"\nProxyPass "/apps/" "http://127.0.0.1:${server}/apps/"`))] };
});

wrong('Apache passes on /app only', { check: 'path', text: /404 to GET \/apps.*, by Apache/, fix: /ProxyPass "\/apps\/"/ }, async (setup) => {
  const server = await setup.server();
  return { args: [local(await setup.apache(`ProxyPass "/app/" "http://127.0.0.1:${server}/app/" upgrade=websocket`))] };
});

for (const [name, of, expected] of [
  ['the certificate has expired', { from: '2020-01-01' }, { text: /has expired/, fix: /renew it/ }],
  ['the certificate is for another name', { name: 'other.example' }, { text: /for other names/, fix: /get one for localhost/ }],
]) {
  wrong(name, { check: 'certificate', ...expected }, async (setup) => {
    const server = await setup.server();
    const { cert, key, authority } = setup.certificate(of);
    const tls = `ssl_certificate ${cert}; ssl_certificate_key ${key};`;
    const port = await setup.nginx(`server { listen 127.0.0.1:{port} ssl; ${tls} ${upgrade} location / { proxy_pass http://127.0.0.1:${server}; } }`);
    return { args: [`https://localhost:${port}`], env: { SSL_CERT_FILE: authority } };
  });
}

wrong('the certificate ends soon', { check: 'certificate', level: 'warning', text: /localhost ends in [34] days/, fix: /certbot renew/ }, async (setup) => {
  const made = new Date(Date.now() - 26 * 86_400_000).toISOString().slice(0, 10);
  const { cert, key, authority } = setup.certificate({ from: made });
  const port = await setup.server({ RESOUND_TLS_CERT: cert, RESOUND_TLS_KEY: key });
  return { args: [`https://localhost:${port}`], env: { SSL_CERT_FILE: authority } };
});

wrong('something holds back what sockets get', { check: 'delay', level: 'warning', text: /only after [23]\.\d s/, fix: /exempt \/app\// }, async (setup) => {
  const server = await setup.server();
  const port = await setup.delaying(server, 2500);
  return { args: [local(port)] };
});

wrong('nobody knows who signed the certificate', { check: 'certificate', text: /nobody that this machine trusts/, fix: /fullchain\.pem.*SSL_CERT_FILE/ }, async (setup) => {
  const { cert, key } = setup.certificate();
  const port = await setup.server({ RESOUND_TLS_CERT: cert, RESOUND_TLS_KEY: key });
  return { args: [`https://localhost:${port}`] };
});

wrong('TLS is dialled where there is none', { check: 'tls', text: /does not speak TLS/, fix: /scheme to http in REVERB_SCHEME \(.*\.env line 4\)/ }, async (setup) => {
  const port = await setup.server();
  setup.dotenv({ REVERB_SCHEME: 'https', REVERB_HOST: 'localhost', REVERB_PORT: port, REVERB_SERVER_PORT: port });
  return { args: [] };
});

wrong('what is dialled with TLS waits for a request', { check: 'tls', text: /does not answer the TLS handshake in 1 s/, fix: /scheme to http/ }, async (setup) => {
  // As Reverb does.
  const patient = createServer((socket) => {
    let request = '';
    socket.on('error', () => {}).on('data', (bytes) => {
      request += bytes.toString('latin1');
      if (request.includes('\r\n\r\n')) socket.end('HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n');
    });
  });
  await new Promise((resolve) => patient.listen(0, '127.0.0.1', resolve));
  setup.onEnd(() => patient.close());
  return { args: [`https://localhost:${patient.address().port}`, '--timeout', '1'] };
});

wrong('what is dialled answers nothing', { check: 'connect', text: /no connection in 1 s/, fix: /firewall/ }, async (setup) => {
  const silent = createServer(() => {});
  await new Promise((resolve) => silent.listen(0, '127.0.0.1', resolve));
  setup.onEnd(() => silent.close());
  return { args: [`https://localhost:${silent.address().port}`, '--timeout', '1'] };
});

wrong('visitors are sent to their own machines', { check: 'browser-address', level: 'warning', text: /https:\/\/shop\.example dial .*own machine/, fix: /VITE_REVERB_HOST/ }, async (setup) => {
  const port = await setup.server();
  const own = { REVERB_HOST: 'localhost', REVERB_PORT: port, REVERB_SCHEME: 'http', REVERB_SERVER_PORT: port };
  setup.dotenv({ ...own, VITE_REVERB_HOST: 'localhost', APP_URL: 'https://shop.example' });
  return { args: [] };
});

wrong('the application has all its connections', { check: 'socket', text: /4004.*all the connections/, fix: /REVERB_APP_MAX_CONNECTIONS/ }, async (setup) => {
  const port = await setup.server({ REVERB_APP_MAX_CONNECTIONS: '1' });
  const socket = connect(port, '127.0.0.1');
  socket.write('GET /app/my-app-key HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n');
  await new Promise((resolve) => socket.once('data', resolve));
  setup.onEnd(() => socket.destroy());
  return { args: [local(port)] };
});

wrong('no TLS is dialled where there is', { check: 'tls', text: /speaks TLS, and is dialled without/, fix: /scheme to https/ }, async (setup) => {
  const { cert, key } = setup.certificate();
  const port = await setup.server({ RESOUND_TLS_CERT: cert, RESOUND_TLS_KEY: key });
  return { args: [local(port)] };
});

wrong('the name has no address', { check: 'name', text: /no-such-host\.invalid: there is no address/, fix: /REVERB_HOST \(.*\.env line 4\)/ }, async (setup) => {
  setup.dotenv({ REVERB_HOST: 'no-such-host.invalid', REVERB_PORT: 8080, REVERB_SCHEME: 'http' });
  return { args: [] };
});

wrong('Laravel dials another port', { check: 'connect', text: /nothing listens there/, fix: /REVERB_PORT=\d+, or REVERB_SERVER_PORT=\d+.*resound/ }, async (setup) => {
  const port = await setup.server();
  setup.dotenv({ REVERB_HOST: 'localhost', REVERB_PORT: await freePort(), REVERB_SCHEME: 'http', REVERB_SERVER_PORT: port });
  return { args: [] };
});

wrong('the server is not started', { check: 'connect', text: /nothing listens there/, fix: /resound start/ }, async (setup) => {
  const port = await freePort();
  setup.dotenv({ REVERB_HOST: 'localhost', REVERB_PORT: port, REVERB_SCHEME: 'http', REVERB_SERVER_PORT: port });
  return { args: [] };
});

wrong('another program has the port', { check: 'server', text: /SimpleHTTP.*no server of Pusher's protocol \(process \d+: .*python3/, fix: /stop it/ }, async (setup) => {
  const port = await setup.program('python3', ({ port, folder }) => ['-m', 'http.server', String(port), '--bind', '127.0.0.1', '--directory', folder]);
  return { args: [local(port)] };
});

wrong('what has the port does not speak HTTP', { check: 'server', text: /does not speak HTTP/, fix: /stop it/ }, async (setup) => {
  const greeter = createServer((socket) => socket.on('error', () => {}).end('220 mail.example ESMTP\r\n'));
  await new Promise((resolve) => greeter.listen(0, '127.0.0.1', resolve));
  greeter.unref();
  return { args: [local(greeter.address().port)] };
});

wrong('Laravel has another secret', { check: 'signature', text: /401/, fix: /REVERB_APP_SECRET \(.*\.env line 3\)/ }, async (setup) => {
  const port = await setup.server();
  setup.dotenv({ REVERB_APP_SECRET: 'another' });
  return { args: [local(port)] };
});

wrong('Laravel has another key', { check: 'application', text: /does not belong to application/, fix: /REVERB_APP_KEY \(.*\.env line 2\)/ }, async (setup) => {
  const port = await setup.server();
  setup.dotenv({ REVERB_APP_KEY: 'another' });
  return { args: [local(port)] };
});

wrong('Laravel has another application', { check: 'application', text: /has no application "another"/, fix: /REVERB_APP_ID \(.*\.env line 1\)/ }, async (setup) => {
  const port = await setup.server();
  setup.dotenv({ REVERB_APP_ID: 'another' });
  return { args: [local(port)] };
});

wrong('pages are built with another key', { check: 'browser-key', text: /built with the key "old"/, fix: /VITE_REVERB_APP_KEY=.*line 4.*npm run build/ }, async (setup) => {
  const port = await setup.server();
  setup.dotenv({ VITE_REVERB_APP_KEY: 'old' });
  return { args: [local(port)] };
});

wrong('the page may not connect', { check: 'origin', text: /4009.*https:\/\/shop\.example may not connect/, fix: /add "shop\.example" to allowed_origins/ }, async (setup) => {
  const port = await setup.server({ REVERB_ALLOWED_ORIGINS: 'other.example' });
  return { args: [local(port), '--page', 'https://shop.example'] };
});

wrong('the page has TLS and its socket has none', { check: 'mixed-content', text: /browsers forbid that/, fix: /scheme https and port 443/ }, async (setup) => {
  const port = await setup.server();
  setup.dotenv({ REVERB_HOST: 'localhost', REVERB_PORT: port, REVERB_SCHEME: 'http', VITE_REVERB_HOST: 'ws.example.com', VITE_REVERB_PORT: 80, VITE_REVERB_SCHEME: 'http', REVERB_SERVER_PORT: port });
  return { args: ['--page', 'https://shop.example'] };
});

wrong('clocks are an hour apart', { check: 'clock', text: /clock/, fix: /timedatectl/ }, async (setup) => {
  const port = await setup.server();
  return { args: [local(port)], before: ['faketime', '-f', '+1h'] };
});

wrong('Redis is away', { check: 'redis', level: 'warning', text: /does not reach its Redis/, fix: /scaling\.port \(.*line \d+/ }, async (setup) => {
  const scaling = { REVERB_SCALING_ENABLED: 'true', REDIS_PORT: String(await freePort()) };
  const port = await setup.server(scaling);
  setup.dotenv({ REVERB_HOST: 'localhost', REVERB_PORT: port, REVERB_SCHEME: 'http', REVERB_SERVER_PORT: port, ...scaling });
  return { args: [] };
});

wrong('a setting cannot be used', { check: 'settings', text: /server\.port = "80x80" \(.*\.env line 4, REVERB_SERVER_PORT\)/, fix: /resound check/ }, async (setup) => {
  setup.dotenv({ REVERB_SERVER_PORT: '80x80' });
  return { args: [] };
});
