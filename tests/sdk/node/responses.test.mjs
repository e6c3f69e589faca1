// Responses through the official Node SDK: whole, streamed, parsed, tools over turns, search, errors.
import { after, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { z } from 'zod';
import { launch, OpenAI, sdk } from './gateway.mjs';

const { zodTextFormat } = await import(`${sdk}/helpers/zod`);
const model = 'gemini-3.8-flash';
const png =
  'data:image/png;base64,' +
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';
const weather = {
  type: 'function',
  name: 'get_weather',
  description: 'The weather in a city.',
  parameters: {
    type: 'object',
    properties: { city: { type: 'string' } },
    required: ['city'],
    additionalProperties: false,
  },
  strict: true,
};

let gateway;
let client;
before(async () => {
  gateway = await launch();
  client = gateway.client();
});
after(() => gateway?.stop());

const only = (response, type) => {
  const found = response.output.filter((item) => item.type === type);
  assert.equal(found.length, 1, JSON.stringify(response.output));
  return found[0];
};

// Reads a stream to its end: numbers without gaps, and nothing closed that was not opened.
const read = async (stream) => {
  const events = [];
  const opened = [];
  for await (const event of stream) {
    assert.equal(event.sequence_number, events.length);
    events.push(event);
    if (event.type === 'response.output_item.added') opened.push(event.item.id);
    else if (event.type === 'response.output_item.done') assert.equal(opened[event.output_index], event.item.id);
    else if (event.item_id) assert.equal(opened[event.output_index], event.item_id);
  }
  assert.match(events.at(-1).type, /^response\.(completed|incomplete)$/);
  const { response } = events.at(-1);
  assert.deepEqual(
    response.output.map((item) => item.id),
    opened,
  );
  return { events, response };
};

test('a whole response', async () => {
  const response = await client.responses.create({ model, input: 'the word is gorse' });
  assert.equal(response.status, 'completed');
  assert.match(response.output_text, /gorse/);
  assert.equal(response.usage.total_tokens, response.usage.input_tokens + response.usage.output_tokens);
  assert.ok(response._request_id);
});

test('a streamed response', async () => {
  const stream = await client.responses.create({ model, input: 'write 30 words', stream: true });
  const { events, response } = await read(stream);
  const deltas = events.filter((event) => event.type === 'response.output_text.delta');
  const message = only(response, 'message');
  assert.equal(deltas.map((event) => event.delta).join(''), message.content[0].text);
  assert.match(message.content[0].text, /word30$/);
});

test('the stream helper', async () => {
  const stream = client.responses.stream({ model, input: 'the word is gorse' });
  let text = '';
  stream.on('response.output_text.delta', (event) => (text += event.delta));
  const response = await stream.finalResponse();
  assert.equal(response.output_text, text);
  assert.match(text, /gorse/);
});

test('parse', async () => {
  const format = zodTextFormat(z.object({ city: z.string(), population: z.number().int() }), 'town');
  const asked = { model, input: 'Paris', text: { format } };
  const { output_parsed: parsed } = await client.responses.parse(asked);
  assert.equal(typeof parsed.city, 'string');
  assert.deepEqual((await client.responses.stream(asked).finalResponse()).output_parsed, parsed);
});

for (const streams of [false, true]) {
  test(`a tool turn without state, ${streams ? 'streamed' : 'whole'}`, async () => {
    const input = [{ role: 'user', content: 'What is the weather in Oslo and in Rome? Use get_weather.' }];
    const asked = { model, tools: [weather], store: false, include: ['reasoning.encrypted_content'] };
    const turn = async () => {
      if (!streams) return client.responses.create({ ...asked, input });
      return (await read(await client.responses.create({ ...asked, input, stream: true }))).response;
    };
    const first = await turn();
    const calls = first.output.filter((item) => item.type === 'function_call');
    assert.deepEqual(calls.map((call) => JSON.parse(call.arguments).city).sort(), ['Oslo', 'Rome']);
    assert.ok(only(first, 'reasoning').encrypted_content);
    input.push(...first.output);
    for (const { call_id } of calls) input.push({ type: 'function_call_output', call_id, output: '12 degrees' });
    const second = await turn();
    assert.equal(only(second, 'message').content[0].text.match(/12 degrees/g).length, 2);
    input.push(...second.output, { role: 'user', content: 'the word is gorse' });
    assert.match(only(await turn(), 'message').content[0].text, /gorse/);
  });
}

test('a custom tool', async () => {
  const tools = [{ type: 'custom', name: 'apply_words', description: 'Takes free text.' }];
  const input = [{ role: 'user', content: 'Please use apply_words.' }];
  const { events, response } = await read(
    await client.responses.create({ model, tools, input, stream: true }),
  );
  const call = only(response, 'custom_tool_call');
  const pieces = events.filter((event) => event.type === 'response.custom_tool_call_input.delta');
  assert.equal(pieces.map((event) => event.delta).join(''), call.input);
  input.push(...response.output, {
    type: 'custom_tool_call_output',
    call_id: call.call_id,
    output: 'gorse was taken',
  });
  assert.match((await client.responses.create({ model, tools, input })).output_text, /gorse was taken/);
});

test('web search and code', async () => {
  const input = 'the word is gorse';
  const response = await client.responses.create({ model, input, tools: [{ type: 'web_search' }] });
  assert.equal(only(response, 'web_search_call').status, 'completed');
  assert.equal(only(response, 'message').content[0].annotations[0].type, 'url_citation');
  const tools = [{ type: 'code_interpreter', container: { type: 'auto' } }];
  assert.match((await client.responses.create({ model, input, tools })).output_text, /gorse/);
});

test('an image as a data URL', async () => {
  const content = [
    { type: 'input_text', text: 'What is this?' },
    { type: 'input_image', image_url: png, detail: 'auto' },
  ];
  const response = await client.responses.create({ model, input: [{ role: 'user', content }] });
  assert.match(response.output_text, /1 image, image\/png/);
});

test('tokens are counted and conversations compacted', async () => {
  const input = [
    { role: 'user', content: 'the word is gorse' },
    { role: 'assistant', content: 'Yes.' },
  ];
  assert.ok((await client.responses.inputTokens.count({ model, input })).input_tokens > 0);
  const compacted = await client.responses.compact({ model, input });
  assert.equal(compacted.object, 'response.compaction');
  const more = [...compacted.output, { role: 'user', content: 'the word is furze' }];
  assert.match((await client.responses.create({ model, input: more })).output_text, /furze/);
});

for (const stream of [false, true]) {
  test(`errors say which field, ${stream ? 'streamed' : 'whole'}`, async () => {
    const refused = (asked, kind, param) =>
      assert.rejects(client.responses.create({ model, input: 'x', stream, ...asked }), (error) => {
        assert.ok(error instanceof kind, String(error));
        assert.equal(error.param, param);
        return true;
      });
    await refused({ model: 'no-such-model' }, OpenAI.NotFoundError, 'model');
    await refused({ temperature: 9 }, OpenAI.BadRequestError, 'temperature');
    await refused({ prompt: { id: 'pmpt_1' } }, OpenAI.BadRequestError, 'prompt');
  });
}

test('leaving a stream early', async () => {
  const stream = await client.responses.create({ model, input: 'write 3000 words', stream: true });
  for await (const event of stream) if (event.type === 'response.output_text.delta') break;
  assert.match((await client.responses.create({ model, input: 'the word is gorse' })).output_text, /gorse/);
});
