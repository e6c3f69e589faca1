// Embeddings through the official SDK.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launch } from './gateway.mjs';

const model = 'gemini-embedding-001';
let gateway;
before(async () => {
  gateway = await launch();
});
after(() => gateway.stop());

test('both encodings of 2048 inputs hold the same numbers', async () => {
  const client = gateway.client();
  const input = Array.from({ length: 2048 }, (_, number) => `text number ${number}`);
  const coded = await client.embeddings.create({ model, input, dimensions: 16 });
  const plain = await client.embeddings.create({ model, input, dimensions: 16, encoding_format: 'float' });
  assert.equal(coded.data.length, 2048);
  for (const [index, one] of coded.data.entries()) {
    assert.equal(one.index, index);
    assert.equal(plain.data[index].index, index);
    assert.deepEqual(one.embedding.map(Math.fround), plain.data[index].embedding.map(Math.fround));
  }
  assert.equal(coded.usage.prompt_tokens, plain.usage.total_tokens);
});

test('tokens are read as the text they stand for', async () => {
  const client = gateway.client();
  const [text, tokens] = await Promise.all([
    client.embeddings.create({ model, input: ['hello world'] }),
    client.embeddings.create({ model, input: [[15339, 1917]] }),
  ]);
  assert.deepEqual(tokens.data, text.data);
});

test('an empty input is refused', async () => {
  await assert.rejects(gateway.client().embeddings.create({ model, input: ['a', ''] }), (error) => {
    assert.equal(error.status, 400);
    assert.equal(error.param, 'input[1]');
    return true;
  });
});
