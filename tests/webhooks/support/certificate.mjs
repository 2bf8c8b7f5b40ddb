// Certificates that sign themselves.

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { directory } from './program.mjs';

/** One for a host and its key, PEM, until the test ends; `path` is its file. */
export function certificate(t, host) {
  const folder = directory(t);
  const [key, cert] = ['key.pem', 'cert.pem'].map((name) => path.join(folder, name));
  const request = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'];
  const names = ['-subj', `/CN=${host}`, '-addext', `subjectAltName=DNS:${host}`];
  const kind = ['-addext', 'basicConstraints=critical,CA:FALSE'];
  execFileSync('openssl', [...request, ...names, ...kind, '-keyout', key, '-out', cert], { stdio: 'ignore' });
  return { key: readFileSync(key), cert: readFileSync(cert), path: cert };
}
