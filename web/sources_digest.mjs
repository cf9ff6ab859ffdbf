// SHA-256 over everything the built page depends on: for each file in the order of its path, the path, a zero byte,
// the contents, a zero byte. src/server/web_page_test.cc computes the same and compares.
import {createHash} from 'node:crypto';
import {readFileSync, readdirSync} from 'node:fs';

const files = ['index.html', 'package-lock.json', 'package.json', 'tsconfig.json', 'vite.config.js',
  ...readdirSync('src').map(name => `src/${name}`)].sort();
const hash = createHash('sha256');
for (const file of files) hash.update(file).update('\0').update(readFileSync(file)).update('\0');
console.log(hash.digest('hex'));
