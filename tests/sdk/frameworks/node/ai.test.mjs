// The Vercel AI SDK over Chat Completions: tools over several steps, objects, streams. `@ai-sdk/openai` drops
// thought signatures, `@ai-sdk/openai-compatible` sends them back.
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
