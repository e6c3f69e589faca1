// Models through the official SDK, and what OpenAI has and we have not.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { launch } from './gateway.mjs';

let gateway;
before(async () => {
  gateway = await launch();
});
after(() => gateway.stop());

test('models are listed and found', async () => {
  const client = gateway.client();
  const found = [];
  for await (const model of client.models.list()) found.push(model);
  const flash = found.find((model) => model.id === 'gemini-3.8-flash');
  assert.equal(flash.object, 'model');
  assert.equal(flash.owned_by, 'google');
  assert.ok(Number.isInteger(flash.created));
  assert.ok(flash.context_window > 0);
  assert.deepEqual(await client.models.retrieve('gemini-3.8-flash'), flash);
  // The SDK escapes the slash.
  assert.deepEqual(await client.models.retrieve('models/gemini-3.8-flash'), flash);
  await assert.rejects(client.models.retrieve('gemini-0-helium'), (error) => {
    assert.equal(error.status, 404);
    assert.equal(error.code, 'model_not_found');
    return true;
  });
  await assert.rejects(client.models.delete('gemini-3.8-flash'), { status: 405 });
});

test('what is not served is named', async () => {
  const client = gateway.client();
  const asked = {
    Images: () => client.images.generate({ prompt: 'gorse', model: 'gpt-image-1' }),
    Audio: () => client.audio.speech.create({ input: 'a', model: 'tts-1', voice: 'alloy' }),
    Files: () => client.files.list(),
    Batch: () => client.batches.retrieve('batch_1'),
    Moderations: () => client.moderations.create({ input: 'a' }),
    'Fine-tuning': () => client.fineTuning.jobs.list(),
    'Vector stores': () => client.vectorStores.create({}),
    Videos: () => client.post('/videos', { body: { prompt: 'gorse' } }),
    Realtime: () => client.post('/realtime/client_secrets', { body: {} }),
    Assistants: () => client.post('/threads', { body: {} }),
  };
  for (const [name, ask] of Object.entries(asked)) {
    await assert.rejects(ask(), (error) => {
      assert.equal(error.status, 404, name);
      assert.equal(error.code, 'unsupported_endpoint');
      assert.match(error.message, new RegExp(`the ${name} API`));
      return true;
    });
  }
});
