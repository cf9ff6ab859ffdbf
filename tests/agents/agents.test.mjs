// Real agents, in an empty folder, against the server with recorded replies (replay_server): each writes a file by its own
// shell tool, reads it again, and says that it is done. REPLAY_SERVER names the server.
import {after, before, test} from 'node:test';
import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import {mkdtempSync, mkdirSync, readFileSync, rmSync} from 'node:fs';
import {createInterface} from 'node:readline';
import {join, resolve} from 'node:path';

const task = 'Bake the toast file';
const programs = resolve('node_modules/.bin');
let server, base, folder;

before(async () => {
  server = spawn(process.env.REPLAY_SERVER, {stdio: ['pipe', 'pipe', 'ignore']});
  base = `http://127.0.0.1:${await new Promise(done => createInterface(server.stdout).once('line', done))}`;
  folder = mkdtempSync(resolve('run-'));
});
after(() => {
  server.stdin.end();
  rmSync(folder, {recursive: true, force: true});
});

/// What the agent prints, with a home and a working folder of its own.
async function run(name, program, args, environment) {
  const home = join(folder, name, 'home'), work = join(folder, name, 'work');
  mkdirSync(home, {recursive: true});
  mkdirSync(work);
  const agent = spawn(join(programs, program), args, {cwd: work, stdio: ['ignore', 'pipe', 'pipe'],
    env: {PATH: process.env.PATH, HOME: home, ...environment}, timeout: 240_000});
  let text = '';
  for (const stream of [agent.stdout, agent.stderr]) stream.on('data', data => { text += data; });
  const code = await new Promise(done => agent.on('close', done));
  assert.equal(code, 0, text);
  assert.equal(readFileSync(join(work, 'toast.txt'), 'utf8'), 'baked 42\n', text);
  return text;
}

test('codex completes a tool loop', async () => {
  const provider = `model_providers.toaster={name="toaster",base_url="${base}/v1",wire_api="responses"}`;
  const text = await run('codex', 'codex', ['exec', '--skip-git-repo-check', '--dangerously-bypass-approvals-and-sandbox',
    '-m', 'toaster-replay', '-c', 'model_provider=toaster', '-c', provider, task], {});
  assert.ok(text.includes('The toast is baked.'), text);
});

test('claude code completes a tool loop', async () => {
  const text = await run('claude', 'claude', ['-p', task, '--model', 'claude-any', '--allowedTools', 'Bash'],
    {ANTHROPIC_BASE_URL: base, ANTHROPIC_API_KEY: 'none', CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: '1', DISABLE_AUTOUPDATER: '1'});
  assert.ok(text.includes('The toast is baked.'), text);
});
