// The Codex CLI as it comes from npm, told of the gateway in its config.toml: a turn, a command that it runs for the
// model, a tool in a namespace, a patch (a custom tool), a goal (which Codex tells as the output of no call), and a
// conversation taken up again.
import { after, before, test } from 'node:test';
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { launch } from './gateway.mjs';

const launcher = fileURLToPath(import.meta.resolve('@openai/codex/bin/codex.js'));
let gateway;
let folder;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'gemway-codex-'));
  // Patches are offered to models that Codex knows.
  const config = join(folder, 'gemway.toml');
  await writeFile(config, '[aliases]\n"gpt-5.5" = "gemini-3.8-flash"\n');
  gateway = await launch({ GEMWAY_CONFIG: config });
  await mkdir(join(folder, 'work'));
  await mkdir(join(folder, 'home'));
  await writeFile(
    join(folder, 'home', 'config.toml'),
    `model = "gemini-3.8-flash"
model_provider = "gemway"
check_for_update_on_startup = false
[analytics]
enabled = false
[model_providers.gemway]
name = "Gemway"
base_url = "${gateway.url}/v1"
env_key = "GEMWAY_CLIENT_KEY"
wire_api = "responses"
stream_max_retries = 0
request_max_retries = 0
`,
  );
});
after(async () => {
  await gateway?.stop();
  await rm(folder, { recursive: true, force: true });
});

// Gives the events of one run, of which none may be a failure.
const codex = async (...words) => {
  const flags = ['exec', '--skip-git-repo-check', '--json', '-s', 'danger-full-access'];
  const env = { ...process.env, CODEX_HOME: join(folder, 'home'), GEMWAY_CLIENT_KEY: 'canary-of-nobody' };
  const child = spawn(process.execPath, [launcher, ...flags, ...words], {
    cwd: join(folder, 'work'),
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 60_000,
  });
  let out = '';
  let log = '';
  child.stdout.on('data', (data) => (out += data));
  child.stderr.on('data', (data) => (log += data));
  const [code] = await once(child, 'close');
  const events = out.split('\n').flatMap((line) => (line.startsWith('{') ? [JSON.parse(line)] : []));
  assert.equal(code, 0, `${out}\n${log}`);
  assert.equal(events.at(-1)?.type, 'turn.completed', out);
  assert.ok(events.at(-1).usage.input_tokens > 0);
  const items = events.filter((event) => event.type === 'item.completed').map((event) => event.item);
  return { items, said: items.filter((item) => item.type === 'agent_message').map((item) => item.text).join('\n') };
};

test('a turn', async () => {
  assert.match((await codex('the word is gorse')).said, /gorse/);
});

test('a command is run for the model, and the conversation taken up again', async () => {
  const { items, said } = await codex('Please call the exec_command function.');
  assert.ok(items.some((item) => item.type === 'command_execution'), JSON.stringify(items));
  assert.match(said, /exec_command answered/);
  assert.match((await codex('resume', '--last', 'the word is gorse')).said, /gorse/);
});

test('a goal', async () => {
  assert.match((await codex('create_goal')).said, /answered/);
});

test('a tool in a namespace', async () => {
  // Codex has found the tool by its namespace and name, and the made-up agent wrong.
  assert.match((await codex('Please call multi_agent_v1__close_agent.')).said, /invalid agent id/);
});

test('a patch', async () => {
  const { said } = await codex('-m', 'gpt-5.5', 'Please call the apply_patch tool.');
  assert.match(said, /apply_patch answered .*Begin Patch/s);
});
