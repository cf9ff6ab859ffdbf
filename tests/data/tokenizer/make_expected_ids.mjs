// Writes expected_ids.txt: the tokens of sample.txt by @huggingface/tokenizers, control tokens
// recognised, first as ids and then the same for the text without recognition (the tokenizer with
// its added tokens taken out).
//
//   cd FOLDER && npm install @huggingface/tokenizers && node .../make_expected_ids.mjs
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';

const { Tokenizer } = createRequire(path.join(process.cwd(), 'x.js'))('@huggingface/tokenizers');
const here = path.dirname(new URL(import.meta.url).pathname);
const json = JSON.parse(fs.readFileSync(path.join(here, 'tokenizer.json'), 'utf8'));
const text = fs.readFileSync(path.join(here, 'sample.txt'), 'utf8');
const encode = (tokenizer) => new Tokenizer(tokenizer, {}).encode(text, { add_special_tokens: false }).ids.join(' ');
fs.writeFileSync(path.join(here, 'expected_ids.txt'),
  `${encode(json)}\n${encode({ ...json, added_tokens: [] })}\n`);
