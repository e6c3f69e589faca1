// What is kept between requests: responses, background work, conversations.
import assert from 'node:assert/strict';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { launch, OpenAI } from './gateway.mjs';

const model = 'gemini-3.8-flash';
const long = 'Count slowly from one to one hundred, with a sentence for each number, please. '.repeat(25);

let gateway;
let client;

before(async () => {
  const folder = await mkdtemp(join(tmpdir(), 'gemway-state-'));
  const config = join(folder, 'gemway.toml');
  await writeFile(
    config,
    `[store]\nurl = "sqlite:${join(folder, 'state.db')}"\n\n` +
      '[simulator]\ntime_to_first_token = "10ms"\ntokens_per_second = 200\n',
  );
  gateway = await launch({ GEMWAY_CONFIG: config });
  client = gateway.client();
});
after(() => gateway?.stop());

const untilOver = async (response) => {
  for (let tries = 0; tries < 600 && ['queued', 'in_progress'].includes(response.status); tries += 1) {
    await sleep(50);
    response = await client.responses.retrieve(response.id);
  }
  return response;
};

test('a response is retrieved, continued and deleted', async () => {
  const first = await client.responses.create({ model, input: 'My name is Ada.' });
  assert.deepEqual(await client.responses.retrieve(first.id), first);
  const second = await client.responses.create({ model, input: 'Who am I?', previous_response_id: first.id });
  assert.ok(second.usage.input_tokens > first.usage.input_tokens);
  await client.responses.delete(first.id);
  await assert.rejects(client.responses.retrieve(first.id), OpenAI.NotFoundError);
});

test('input items come in pages', async () => {
  const input = [0, 1, 2].map((number) => ({ role: 'user', content: `message ${number}` }));
  const response = await client.responses.create({ model, input });
  const said = [];
  for await (const item of client.responses.inputItems.list(response.id, { limit: 1, order: 'asc' })) {
    said.push(item.content[0].text);
  }
  assert.deepEqual(said, ['message 0', 'message 1', 'message 2']);
});

test('background work is polled and cancelled', async () => {
  const queued = await client.responses.create({ model, input: 'Tell me something.', background: true });
  assert.equal(queued.status, 'queued');
  const done = await untilOver(queued);
  assert.equal(done.status, 'completed');
  assert.ok(done.output_text);
  const other = await client.responses.create({ model, input: long, background: true });
  assert.equal((await client.responses.cancel(other.id)).status, 'cancelled');
});

test('background work is followed again where it was left', async () => {
  const seen = [];
  const stream = await client.responses.create({ model, input: long, background: true, stream: true });
  for await (const event of stream) {
    seen.push(event);
    if (event.type === 'response.output_text.delta') break;
  }
  const { id } = seen[0].response;
  const rest = await client.responses.retrieve(id, {
    stream: true,
    starting_after: seen.at(-1).sequence_number,
  });
  for await (const event of rest) seen.push(event);
  assert.deepEqual(
    seen.map((event) => event.sequence_number),
    seen.map((_, index) => index),
  );
  assert.equal(seen.at(-1).type, 'response.completed');
  const helper = client.responses.stream({ response_id: id });
  assert.equal((await helper.finalResponse()).output_text, (await client.responses.retrieve(id)).output_text);
});

test('conversations and their items', async () => {
  const conversation = await client.conversations.create({
    items: [{ type: 'message', role: 'user', content: 'Hello' }],
    metadata: { topic: 'a' },
  });
  await client.responses.create({ model, input: 'And now?', conversation: conversation.id });
  const roles = [];
  for await (const item of client.conversations.items.list(conversation.id, { order: 'asc', limit: 2 })) {
    if (item.type === 'message') roles.push(item.role);
  }
  assert.deepEqual(roles, ['user', 'user', 'assistant']);
  const added = await client.conversations.items.create(conversation.id, {
    items: [{ type: 'message', role: 'user', content: 'More' }],
  });
  const [{ id }] = added.data;
  const one = await client.conversations.items.retrieve(id, { conversation_id: conversation.id });
  assert.equal(one.content[0].text, 'More');
  await client.conversations.items.delete(id, { conversation_id: conversation.id });
  const updated = await client.conversations.update(conversation.id, { metadata: { topic: 'b' } });
  assert.equal(updated.metadata.topic, 'b');
  assert.equal((await client.conversations.delete(conversation.id)).deleted, true);
  await assert.rejects(client.conversations.retrieve(conversation.id), OpenAI.NotFoundError);
});
