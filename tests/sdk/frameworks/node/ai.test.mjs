// The Vercel AI SDK over Chat Completions and over Responses: tools over several steps, objects, streams. In chat,
// `@ai-sdk/openai` drops thought signatures, `@ai-sdk/openai-compatible` sends them back.
import { test, before, after } from 'node:test';
import assert from 'node:assert/strict';
import { generateText, streamText, Output, stepCountIs, tool } from 'ai';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { z } from 'zod';
import { launch } from './gateway.mjs';

let gateway, models;

before(async () => {
  gateway = await launch();
  const options = { baseURL: `${gateway.url}/v1`, apiKey: 'canary-of-nobody' };
  const compatible = createOpenAICompatible({
    name: 'gemway',
    includeUsage: true,
    supportsStructuredOutputs: true,
    ...options,
  });
  const openai = createOpenAI(options);
  models = { compatible: (name) => compatible(name), openai: (name) => openai.chat(name) };
});

after(() => gateway.stop());

const tools = {
  get_weather: tool({
    description: 'The weather in a city',
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => `12 degrees in ${city}`,
  }),
};
const prompt = 'What is the weather in Oslo and in Rome? Use the get_weather tool.';

for (const provider of ['compatible', 'openai']) {
  for (const name of ['gemini-3.8-flash', 'gemini-2.5-flash']) {
    test(`${provider} ${name}: a tool loop`, async () => {
      const model = models[provider](name);
      const result = await generateText({ model, tools, prompt, stopWhen: stepCountIs(4), maxRetries: 0 });
      assert.equal(result.steps[0].toolCalls.length, 2);
      assert.match(result.text, /12 degrees in Oslo.*12 degrees in Rome/s);
      assert.equal(result.finishReason, 'stop');
      assert.ok(result.totalUsage.totalTokens > 0);
    });

    test(`${provider} ${name}: a streamed tool loop`, async () => {
      const model = models[provider](name);
      const result = streamText({ model, tools, prompt, stopWhen: stepCountIs(4), maxRetries: 0 });
      let text = '';
      for await (const part of result.fullStream) {
        if (part.type === 'error') throw part.error;
        if (part.type === 'text-delta') text += part.text;
      }
      assert.match(text, /12 degrees in Oslo.*12 degrees in Rome/s);
    });
  }

  test(`${provider}: an object`, async () => {
    const schema = z.object({ name: z.string(), age: z.number().int() });
    const model = models[provider]('gemini-3.8-flash');
    const result = await generateText({
      model,
      output: Output.object({ schema }),
      prompt: 'The person is called Ada and is 36 years old.',
      maxRetries: 0,
    });
    assert.equal(typeof result.output.age, 'number');
  });
}

// Its default is Responses, and the items of a turn that was stored are only named in the next one.
for (const store of [undefined, false]) {
  for (const streams of [false, true]) {
    test(`responses, store ${store}, ${streams ? 'streamed' : 'whole'}: a tool loop and another turn`, async () => {
      const sent = [];
      const openai = createOpenAI({
        baseURL: `${gateway.url}/v1`,
        apiKey: 'canary-of-nobody',
        fetch: (url, init) => {
          sent.push(JSON.parse(init.body));
          return fetch(url, init);
        },
      });
      const asked = {
        model: openai.responses('gemini-3.8-flash'),
        tools,
        stopWhen: stepCountIs(4),
        maxRetries: 0,
        providerOptions: { openai: { store, reasoningSummary: 'auto', forceReasoning: true } },
      };
      const turn = async (messages) => {
        if (!streams) return generateText({ ...asked, messages });
        const result = streamText({ ...asked, messages });
        for await (const part of result.fullStream) if (part.type === 'error') throw part.error;
        return { text: await result.text, response: await result.response, steps: await result.steps };
      };
      const said = [{ role: 'user', content: prompt }];
      const first = await turn(said);
      assert.match(first.text, /12 degrees in Oslo.*12 degrees in Rome/s);
      said.push(...first.response.messages, { role: 'user', content: 'the word is gorse' });
      assert.match((await turn(said)).text, /gorse/);
      const named = sent.at(-1).input.filter((item) => item.type === 'item_reference');
      assert.equal(named.length > 0, store === undefined, JSON.stringify(sent.at(-1).input));
    });
  }
}

test('responses: an object', async () => {
  const openai = createOpenAI({ baseURL: `${gateway.url}/v1`, apiKey: 'canary-of-nobody' });
  const schema = z.object({ name: z.string(), age: z.number().int() });
  const model = openai.responses('gemini-3.8-flash');
  const result = await generateText({ model, output: Output.object({ schema }), prompt: 'Ada is 36.', maxRetries: 0 });
  assert.equal(typeof result.output.age, 'number');
});

test('responses: a web search and its sources', async () => {
  const openai = createOpenAI({ baseURL: `${gateway.url}/v1`, apiKey: 'canary-of-nobody' });
  const web = { web_search: openai.tools.webSearch({}) };
  const model = openai.responses('gemini-3.8-flash');
  const result = await generateText({ model, tools: web, prompt: 'the word is gorse', maxRetries: 0 });
  assert.match(result.text, /gorse/);
  assert.ok(result.sources.length > 0);
  const streamed = streamText({ model, tools: web, prompt: 'the word is gorse', maxRetries: 0 });
  for await (const part of streamed.fullStream) if (part.type === 'error') throw part.error;
  assert.ok((await streamed.sources).length > 0);
});
