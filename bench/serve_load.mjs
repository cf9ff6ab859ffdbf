// What serving costs, seen by clients: bench/serve_load.mjs PROGRAM [options] starts PROGRAM serve, and for the speed of a
// batch PROGRAM bench in turn with it. Needs Node alone. The measurements, by name:
//   load      several streams at once against the same batch of `bench`; times to first token and between tokens
//   newcomer  a short prompt while a long one is read, and the decoding of another, against both alone
//   hang-up   a client that goes in the middle of a long prompt and comes back
import {spawn, execFileSync} from 'node:child_process';
import {createInterface} from 'node:readline';
import {parseArgs} from 'node:util';

const {values: options, positionals: [program]} = parseArgs({allowPositionals: true, options: {
  model: {type: 'string', default: ''},
  measure: {type: 'string', default: 'load,newcomer,hang-up'},
  sessions: {type: 'string', default: '8'},  // load
  tokens: {type: 'string', default: '64'},  // of each reply
  rounds: {type: 'string', default: '3'},
  long: {type: 'string', default: '30000'},  // tokens of the long prompt
  short: {type: 'string', default: '16,100,1000'},  // tokens of newcomers' prompts
  serve: {type: 'string', default: ''},  // more arguments of serve
}});
const model = options.model ? [options.model] : [];
const pause = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));
const seconds = () => performance.now() / 1000;
const rank = (values, share) => [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * share))];
const median = values => rank(values, 0.5);
const list = text => text.split(',').map(Number);

async function startServer(...more) {
  const server = spawn(program, ['serve', ...model, '--port', '0', '-q', ...more, ...options.serve.split(' ').filter(Boolean)], {stdio: ['ignore', 'pipe', 'inherit']});
  process.once('exit', () => server.kill('SIGKILL'));  // nothing is left behind if a measurement fails
  const base = await new Promise(resolve => createInterface(server.stdout).once('line', resolve));
  return {base, stop: () => new Promise(resolve => { server.once('exit', resolve); server.kill('SIGTERM'); })};
}

const post = (base, path, body, signal) =>
  fetch(base + path, {method: 'POST', headers: {'content-type': 'application/json'}, body: JSON.stringify(body), signal});
const tokenize = async (base, content) => (await (await post(base, '/tokenize', {content})).json()).tokens;

let bias, drawn = 1;
const draw = below => { drawn = (drawn * 48271) % 2147483647; return drawn % below; };

/// Text of about so many tokens that no other text begins like.
async function textOf(base, tokens) {
  let text = '';
  while ((await tokenize(base, text)).length < tokens) {
    const missing = tokens - text.length / 4;
    for (let i = 0; i < Math.max(1, missing / 4); ++i) text += String.fromCharCode(97 + draw(26), 97 + draw(26), 97 + draw(26), 32);
  }
  return text;
}

/// A streamed reply: when its tokens came. Replies consist of letters and digits, so that every token is told as it comes.
async function reply(base, content, tokens, {signal, on = () => {}} = {}) {
  bias ??= Object.fromEntries((await Promise.all([...'abcdefghijklmnopqrstuvwxyz0123456789'].map(letter => tokenize(base, letter))))
    .filter(ids => ids.length === 1).map(([id]) => [id, 100]));
  const sent = seconds(), times = [];
  let usage;
  try {
    const answer = await post(base, '/v1/chat/completions', {messages: [{role: 'user', content}], thinking: {type: 'disabled'},
      max_tokens: tokens, ignore_eos: true, logit_bias: bias, stream: true, stream_options: {include_usage: true}}, signal);
    if (answer.status !== 200) throw new Error(await answer.text());
    let text = '';
    const decoder = new TextDecoder();
    for await (const bytes of answer.body) {
      text += decoder.decode(bytes, {stream: true});
      for (let end; (end = text.indexOf('\n\n')) >= 0; text = text.slice(end + 2)) {
        const line = text.slice(0, end);
        if (!line.startsWith('data: {')) continue;
        const event = JSON.parse(line.slice(6));
        usage = event.usage ?? usage;
        if (!event.choices?.[0]?.delta?.content) continue;
        times.push(seconds());
        on(times);
      }
    }
  } catch (error) {
    if (error.name !== 'AbortError') throw error;
  }
  return {sent, times, usage, first: times[0] - sent, gaps: times.slice(1).map((time, i) => time - times[i])};
}

async function load() {
  const sessions = Number(options.sessions), tokens = Number(options.tokens);
  const shares = [], served = [], batches = [], firsts = [], gaps = [];
  for (let round = 0; round < Number(options.rounds); ++round) {
    const runs = JSON.parse(execFileSync(program, ['bench', ...model, '--prefill', '1', '--batch', String(sessions), '--steps', String(tokens - 1),
      '--depth', '32', '--repeat', '1', '--json'], {stdio: ['ignore', 'pipe', 'ignore']}));
    const batch = runs.runs.find(run => run.kind === 'decode').tokens_per_s;
    const server = await startServer();
    const texts = [];
    for (let i = 0; i <= sessions; ++i) texts.push(await textOf(server.base, 24));
    await reply(server.base, texts[sessions], 4);  // as bench does not count its first
    const replies = await Promise.all(texts.slice(0, sessions).map(text => reply(server.base, text, tokens)));
    await server.stop();
    // From the moment when all decode to the first one's end.
    const begin = Math.max(...replies.map(one => one.times[0])), end = Math.min(...replies.map(one => one.times.at(-1)));
    const decoded = replies.flatMap(one => one.times).filter(time => time > begin && time <= end).length;
    const rate = decoded / (end - begin);
    shares.push(rate / batch);
    served.push(rate);
    batches.push(batch);
    firsts.push(...replies.map(one => one.first));
    gaps.push(...replies.flatMap(one => one.gaps));
  }
  const times = values => [0.5, 0.95, 0.99].map(share => (rank(values, share) * 1000).toFixed(1)).join(', ');
  console.log(`load: ${sessions} streams ${median(served).toFixed(1)} tokens/s, bench ${median(batches).toFixed(1)}; ` +
    `share ${shares.map(share => (100 * share).toFixed(0)).join(', ')} %, median ${(100 * median(shares)).toFixed(0)} %`);
  console.log(`load: first token ${times(firsts)} ms, between tokens ${times(gaps)} ms (p50, p95, p99)`);
}

async function newcomer() {
  // Prompts that were broken off are not read on: "alone" means it.
  const server = await startServer('--linger-seconds', '0'), {base} = server;
  const long = await textOf(base, Number(options.long));
  await reply(base, await textOf(base, 1000), 4);  // touches the weights
  for (const decoding of [false, true]) {
    for (const short of list(options.short)) {
      const lone = [], met = [];
      let lone_rate = 0, rate = 0;
      for (let round = 0; round < Number(options.rounds); ++round) lone.push((await reply(base, await textOf(base, short), 1)).first);
      const goer = new AbortController(), writer = new AbortController();
      const reading = () => reply(base, draw(1e6) + long, 1, {signal: goer.signal});
      let written = [];
      const writing = decoding && reply(base, 'Write.', 1e6, {signal: writer.signal, on: times => { written = times; }});
      if (decoding) {
        while (written.length < 8) await pause(5);
        const from = written.length;
        const start = seconds();
        await pause(1000 + 8000 * median(lone));
        lone_rate = (written.length - from) / (seconds() - start);
      }
      const long_one = reading();
      await pause(4000 * median(lone) + 1000);
      const from = written.length, start = seconds();
      if (decoding) await pause(1000);
      for (let round = 0; round < Number(options.rounds); ++round) {
        met.push((await reply(base, await textOf(base, short), 1)).first);
        await pause(1000 * median(lone) * (1 + draw(100) / 50));
      }
      if (decoding) await pause(1000);
      rate = (written.length - from) / (seconds() - start);
      goer.abort();
      const {times} = await long_one;
      writer.abort();
      await writing;
      if (times.length > 0) throw new Error('the long prompt was over too soon; give a longer one by --long');
      console.log(`newcomer of ${short} tokens${decoding ? ', one decoding' : ''}: first token after ${(1000 * median(met)).toFixed(0)} ms ` +
        `(at most ${(1000 * Math.max(...met)).toFixed(0)}), alone ${(1000 * median(lone)).toFixed(0)}: ` +
        `${(median(met) / median(lone)).toFixed(1)} times (at most ${(Math.max(...met) / median(lone)).toFixed(1)})` +
        (decoding ? `; decoding ${rate.toFixed(1)} tokens/s, alone ${lone_rate.toFixed(1)}: ${(100 * rate / lone_rate).toFixed(0)} %` : ''));
    }
  }
  await server.stop();
}

async function hangUp() {
  const server = await startServer(), {base} = server;
  const [one, other] = [await textOf(base, Number(options.long)), await textOf(base, Number(options.long))];
  await reply(base, await textOf(base, 24), 4);
  const whole = await reply(base, one, 1);
  const goer = new AbortController();
  const broken = reply(base, other, 1, {signal: goer.signal});
  await pause(500 * whole.first);
  goer.abort();
  await broken;
  const back = await reply(base, other, 1);
  await server.stop();
  const hit = back.usage.prompt_cache_hit_tokens, all = back.usage.prompt_tokens;
  console.log(`hang-up: ${all} tokens took ${whole.first.toFixed(2)} s; after a hang-up at half of that and a return at once ${back.first.toFixed(2)} s ` +
    `(${(100 * back.first / whole.first).toFixed(0)} %), ${hit} tokens (${(100 * hit / all).toFixed(0)} %) were there`);
}

for (const name of options.measure.split(',')) await {load, newcomer, 'hang-up': hangUp}[name]();
