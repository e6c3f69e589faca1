// Legacy completions through the official SDK.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launch } from './gateway.mjs';

const model = 'gemini-2.5-flash';
let gateway;
before(async () => {
  gateway = await launch();
});
after(() => gateway.stop());

test('a whole completion', async () => {
  const reply = await gateway.client().completions.create({ model, prompt: 'the word is gorse', max_tokens: 100 });
  assert.equal(reply.object, 'text_completion');
  assert.match(reply.choices[0].text, /gorse/);
});

test('several prompts, streamed', async () => {
  const prompt = ['the word is gorse', 'the word is fern'];
  const stream = await gateway.client().completions.create({ model, prompt, max_tokens: 100, stream: true });
  const texts = ['', ''];
  for await (const chunk of stream) for (const { index, text } of chunk.choices) texts[index] += text;
  assert.match(texts[0], /gorse/);
  assert.match(texts[1], /fern/);
});

test('a suffix is refused', async () => {
  await assert.rejects(
    gateway.client().completions.create({ model, prompt: 'a', suffix: 'b' }),
    (error) => error.status === 400 && error.param === 'suffix',
  );
});
