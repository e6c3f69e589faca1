// Starts the gateway for the tests: the real binary over its built-in simulator, on free loopback ports.
import { spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

export const sdk = process.env.SDK ?? 'openai6';
export const { default: OpenAI } = await import(sdk);
export const { zodResponseFormat } = await import(`${sdk}/helpers/zod`);

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

export async function launch(extra = {}) {
  const [port, admin] = [await freePort(), await freePort()];
  const unwanted = /^(GEMINI_|GOOGLE_|GEMWAY_|OPENAI_)/;
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !unwanted.test(name)));
  Object.assign(env, {
    GEMWAY_LISTEN: `127.0.0.1:${port}`,
    GEMWAY_ADMIN_LISTEN: `127.0.0.1:${admin}`,
    ...extra,
  });
  const child = spawn(process.env.GEMWAY_BIN, ['serve'], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  let log = '';
  child.stdout.on('data', (data) => (log += data));
  child.stderr.on('data', (data) => (log += data));
  const url = `http://127.0.0.1:${port}`;
  for (let tries = 0; tries < 400; tries += 1) {
    if (child.exitCode !== null) break;
    const ready = await fetch(`http://127.0.0.1:${admin}/readyz`).catch(() => null);
    if (ready?.status === 200) {
      return {
        url,
        admin: `http://127.0.0.1:${admin}`,
        client: (options = {}) =>
          new OpenAI({ baseURL: `${url}/v1`, apiKey: 'canary-of-nobody', maxRetries: 0, timeout: 30_000, ...options }),
        async stop() {
          const gone = child.exitCode === null ? once(child, 'exit') : Promise.resolve([child.exitCode]);
          // Where the test command looks for secrets.
          const traces = process.env.GEMWAY_TEST_TRACES;
          const metrics = traces && (await fetch(`http://127.0.0.1:${admin}/metrics`).then((page) => page.text()));
          child.kill('SIGTERM');
          const [code] = await gone;
          if (traces) await writeFile(join(traces, `node-${process.pid}-${port}.log`), `${log}\n${metrics}`);
          if (code !== 0) throw new Error(`the gateway exited with ${code} on SIGTERM\n${log}`);
        },
      };
    }
    await sleep(50);
  }
  child.kill('SIGKILL');
  throw new Error(`the gateway did not start:\n${log}`);
}
