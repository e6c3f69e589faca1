// Every recorded answer of Gemini's, streamed and put together by the official Node SDK's own helper.
import { after, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { launch } from './gateway.mjs';

const cases = join(process.env.GOLDEN, 'answer');
// What a request asks for in these words; cases of other shapes need a request of their own.
const asked = {
  include_usage: {},
  thoughts: { google: { thinking_config: { include_thoughts: true } } },
  single_call: { parallel_tool_calls: false },
  may_be_empty: { stop: ['x'] },
};

let now;
let gateway;
let client;
let folder;
const google = createServer((request, response) => {
  request.resume().on('end', () => {
    response.writeHead(200, { 'content-type': now.type }).end(now.body);
  });
});

before(async () => {
  google.listen(0, '127.0.0.1');
  await once(google, 'listening');
  folder = mkdtempSync(join(tmpdir(), 'gemway-answers-'));
  const site = { name: 'g', kind: 'gemini_api', api_key: 'k', base_url: `http://127.0.0.1:${google.address().port}` };
  const lines = Object.entries(site).map(([name, value]) => `${name} = ${JSON.stringify(value)}`);
  writeFileSync(join(folder, 'gemway.toml'), `[[sites]]\n${lines.join('\n')}\n`);
  gateway = await launch({ GEMWAY_CONFIG: join(folder, 'gemway.toml') });
  client = gateway.client({ defaultHeaders: { 'x-gemway-no-retry': '1' } });
});
after(async () => {
  await gateway?.stop();
  google.closeAllConnections();
  google.close();
  if (folder) rmSync(folder, { recursive: true });
});

const seen = ({ choices }) =>
  choices.map(({ index, finish_reason, message }) => ({
    index,
    finish_reason,
    content: message.content ?? '',
    refusal: message.refusal ?? null,
    annotations: message.annotations ?? [],
    calls: (message.tool_calls ?? []).map(({ type, function: { name, arguments: text } }) => [type, name, text]),
  }));

for (const name of readdirSync(cases).sort()) {
  const read = (file) => readFileSync(join(cases, name, file), 'utf8');
  const has = (file) => existsSync(join(cases, name, file));
  const shape = has('shape.json') ? Object.keys(JSON.parse(read('shape.json'))) : [];
  if (!shape.every((word) => word in asked)) continue;
  test(name, async () => {
    const sse = has('response.gemini.sse');
    let body = readFileSync(join(cases, name, sse ? 'response.gemini.sse' : 'response.gemini.json'));
    // An array is what streams come as without `alt=sse`.
    if (!sse && body[0] !== 0x5b) body = `data: ${body.toString().replaceAll('\n', ' ')}\r\n\r\n`;
    now = { body, type: sse ? 'text/event-stream' : 'application/json' };
    const request = Object.assign(
      { model: 'gemini-2.5-flash', messages: [{ role: 'user', content: 'x' }], stream_options: { include_usage: true } },
      ...shape.map((word) => asked[word]),
    );
    const expected = JSON.parse(read('response.openai.json'));
    const reading = client.chat.completions.stream(request).finalChatCompletion();
    if (expected.error) {
      await assert.rejects(reading, (error) => {
        assert.equal(error.code ?? error.error?.code, expected.error.code);
        return true;
      });
      return;
    }
    const reply = await reading;
    assert.deepEqual(seen(reply), seen(expected));
    assert.deepEqual(reply.usage, expected.usage);
  });
}
