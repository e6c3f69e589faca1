// Chat through the official Node SDK: whole, streamed, tools, structured answers, errors, leaving early.
import { after, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { z } from 'zod';
import { launch, OpenAI, zodResponseFormat } from './gateway.mjs';

const MODELS = ['gemini-2.5-flash', 'gemini-3-flash-preview', 'gemini-3.8-flash'];
const model = MODELS.at(-1);
const KEY = 'sk-canary-of-a-client-0123456789';
const user = (content) => [{ role: 'user', content }];

const parameters = {
  type: 'object',
  properties: { city: { type: 'string' }, unit: { type: 'string', enum: ['celsius', 'fahrenheit'] } },
  required: ['city', 'unit'],
  additionalProperties: false,
};
const weather = {
  type: 'function',
  function: { name: 'get_weather', description: 'The weather in a city.', parameters },
};

let gateway;
let client;
before(async () => {
  gateway = await launch();
  client = gateway.client();
});
after(() => gateway?.stop());

for (const name of MODELS) {
  test(`a whole answer of ${name}`, async () => {
    const reply = await client.chat.completions.create({ model: name, messages: user('the word is gorse') });
    assert.equal(reply.object, 'chat.completion');
    assert.equal(reply.model, name);
    assert.equal(reply.choices[0].finish_reason, 'stop');
    assert.match(reply.choices[0].message.content, /gorse/);
    assert.equal(reply.usage.total_tokens, reply.usage.prompt_tokens + reply.usage.completion_tokens);
    assert.ok(reply._request_id);
  });

  test(`a streamed answer of ${name}`, async () => {
    const stream = await client.chat.completions.create({
      model: name,
      messages: user('the word is heather'),
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = '';
    let finish;
    let usage;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta.content ?? '';
      finish = chunk.choices[0]?.finish_reason ?? finish;
      usage = chunk.usage ?? usage;
    }
    assert.match(text, /heather/);
    assert.equal(finish, 'stop');
    assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
  });

  test(`a forced tool call of ${name}, streamed through the helper`, async () => {
    const stream = client.chat.completions.stream({
      model: name,
      messages: user('Paris?'),
      tools: [weather],
      tool_choice: { type: 'function', function: { name: 'get_weather' } },
    });
    const final = await stream.finalChatCompletion();
    const [call] = final.choices[0].message.tool_calls;
    assert.equal(final.choices[0].finish_reason, 'tool_calls');
    assert.equal(call.function.name, 'get_weather');
    assert.equal(typeof JSON.parse(call.function.arguments).city, 'string');
  });

  test(`runTools goes round with ${name}`, async () => {
    const asked = [];
    const runner = client.chat.completions.runTools({
      model: name,
      messages: user('use get_weather for Paris'),
      tools: [
        {
          type: 'function',
          function: {
            ...weather.function,
            parse: JSON.parse,
            function: (args) => {
              asked.push(args);
              return JSON.stringify({ degrees: 21 });
            },
          },
        },
      ],
    });
    assert.ok(await runner.finalContent());
    assert.equal(asked.length, 1);
    assert.ok(['celsius', 'fahrenheit'].includes(asked[0].unit));
  });

  test(`parse with zod, ${name}`, async () => {
    const Event = z.object({ name: z.string(), day: z.number().int(), people: z.array(z.string()) });
    const reply = await client.chat.completions.parse({
      model: name,
      messages: user('a party'),
      response_format: zodResponseFormat(Event, 'event'),
    });
    Event.parse(reply.choices[0].message.parsed);
  });
}

test('the stream helper', async () => {
  const stream = client.chat.completions.stream({ model, messages: user('the word is broom') });
  let deltas = '';
  stream.on('content', (delta) => (deltas += delta));
  const final = await stream.finalChatCompletion();
  assert.match(deltas, /broom/);
  assert.equal(final.choices[0].message.content, deltas);
  assert.equal(final.choices[0].message.role, 'assistant');
});

test('runTools with streams', async () => {
  let calls = 0;
  const runner = client.chat.completions.runTools({
    model,
    stream: true,
    messages: user('use get_weather for Paris'),
    tools: [
      {
        type: 'function',
        function: { ...weather.function, parse: JSON.parse, function: () => `${(calls += 1)} degrees` },
      },
    ],
  });
  assert.ok(await runner.finalContent());
  assert.equal(calls, 1);
});

test('models', async () => {
  const ids = [];
  for await (const one of client.models.list()) ids.push(one.id);
  for (const name of MODELS) assert.ok(ids.includes(name), name);
  assert.equal((await client.models.retrieve(model)).id, model);
});

test('a bad request names the parameter', async () => {
  await assert.rejects(
    client.chat.completions.create({ model, messages: [{ role: 'wizard', content: 'hi' }] }),
    (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.equal(error.type, 'invalid_request_error');
      assert.match(error.param, /^messages\[0\]/);
      assert.ok(error.requestID);
      return true;
    },
  );
});

test('errors raise the right class', async () => {
  const ask = (name) => client.chat.completions.create({ model: name, messages: user('hi') });
  await assert.rejects(ask('gemini-nope'), OpenAI.NotFoundError);
  await assert.rejects(ask('sim-429'), OpenAI.RateLimitError);
  await assert.rejects(ask('sim-503'), OpenAI.InternalServerError);
});

test('keys', async () => {
  const closed = await launch({ GEMWAY_API_KEYS: KEY });
  try {
    const ask = (apiKey) => closed.client({ apiKey }).chat.completions.create({ model, messages: user('hi') });
    await assert.rejects(ask('sk-wrong'), OpenAI.AuthenticationError);
    assert.ok((await ask(KEY)).choices.length);
  } finally {
    await closed.stop();
  }
});

for (const name of ['sim-error-mid', 'sim-reset', 'sim-cut']) {
  test(`a stream that breaks does not end cleanly: ${name}`, async () => {
    const finishes = [];
    await assert.rejects(async () => {
      const stream = await client.chat.completions.create({ model: name, messages: user('one two'), stream: true });
      for await (const chunk of stream) finishes.push(chunk.choices[0]?.finish_reason);
    }, OpenAI.APIError);
    assert.ok(finishes.every((finish) => !finish));
  });
}

test('leaving in the middle of a stream', async () => {
  const words = Array.from({ length: 2000 }, (_, n) => `w${n}`).join(' ');
  const stream = await client.chat.completions.create({ model, messages: user(words), stream: true });
  let chunks = 0;
  for await (const chunk of stream) {
    assert.ok(chunk.id);
    if ((chunks += 1) === 3) stream.controller.abort();
  }
  assert.ok(chunks < 100);
  assert.ok((await client.chat.completions.create({ model, messages: user('hi') })).choices.length);
});

test('leaving before the answer', async () => {
  const leave = new AbortController();
  setTimeout(() => leave.abort(), 5);
  await assert.rejects(
    client.chat.completions.create({ model, messages: user('hi'), stream: true }, { signal: leave.signal }).then(
      async (stream) => {
        for await (const chunk of stream) assert.ok(chunk);
        throw new OpenAI.APIUserAbortError();
      },
    ),
    OpenAI.APIUserAbortError,
  );
});
