// The server's own description (/openapi.json) against the server: it is valid, its examples are answered, and whatever
// it forbids is refused with the field's name. Wrong values are made from the schemas, field by field.
import {after, before, test} from 'node:test';
import assert from 'node:assert/strict';
import SwaggerParser from '@apidevtools/swagger-parser';
import Ajv from 'ajv/dist/2020.js';
import {startReplayServer} from './replay.mjs';

const wrongValues = [true, false, 17, 17.5, -1e9, 1e12, 'wrong', '', 'é'.repeat(600), [], [17], [[]], Array(100).fill('x'), {}, {wrong: 1}, null];
let server, base, document;

before(async () => {
  server = await startReplayServer();
  base = server.base;
  document = await (await fetch(`${base}/openapi.json`)).json();
});
after(() => server.stop());

const post = (path, body) => fetch(base + path, {method: 'POST', headers: {'content-type': 'application/json'}, body: JSON.stringify(body)});
const clone = value => JSON.parse(JSON.stringify(value));

/// The schemas that a value is under: of alternatives those that it fits.
function* schemasOf(schema, value, ajv) {
  const alternatives = schema.oneOf ?? schema.anyOf;
  if (!alternatives) yield schema;
  for (const one of alternatives ?? []) if (ajv.validate(one, value)) yield* schemasOf(one, value, ajv);
}

/// Every place of an example at which a value can be put: [its name in messages, the keys to it, its schema, another name
/// that a message may have]. Where the value decides which alternative of a schema counts, a message may speak of that.
function* placesOf(schema, value, ajv, name = '', keys = []) {
  const near = schema.oneOf || schema.anyOf ? name : undefined;
  for (const one of schemasOf(schema, value, ajv)) {
    for (const [key, inner] of Object.entries(one.properties ?? {})) {
      const place = [name ? `${name}.${key}` : key, [...keys, key], inner, near];
      yield place;
      if (value?.[key] != null) yield* placesOf(inner, value[key], ajv, place[0], place[1]);
    }
    if (Array.isArray(value) && one.items) {
      for (const [i, item] of value.entries()) {
        yield [`${name}[${i}]`, [...keys, i], one.items, near];
        yield* placesOf(one.items, item, ajv, `${name}[${i}]`, [...keys, i]);
      }
    }
  }
}

function replaced(example, keys, value) {
  const copy = clone(example);
  let inner = copy;
  for (const key of keys.slice(0, -1)) inner = inner[key];
  if (value === undefined) delete inner[keys.at(-1)];
  else inner[keys.at(-1)] = value;
  return copy;
}

test('the description is valid OpenAPI', async () => {
  await SwaggerParser.validate(clone(document));
});

test('every path knows its methods', async () => {
  for (const [path, methods] of Object.entries(document.paths)) {
    const url = base + path.replace('{model}', 'toaster-replay');
    const other = methods.get ? 'POST' : 'GET';
    const refused = await fetch(url, {method: other, ...(other === 'POST' && {body: '{}'})});
    assert.equal(refused.status, 405, path);
    assert.equal(refused.headers.get('allow'), methods.get ? 'GET, HEAD, OPTIONS' : 'POST, OPTIONS', path);
    if (!methods.get) continue;
    const [got, head] = [await fetch(url), await fetch(url, {method: 'HEAD'})];
    assert.deepEqual([got.status, head.status], [200, 200], path);
    assert.equal(head.headers.get('content-type'), got.headers.get('content-type'), path);
    assert.ok(Object.keys(methods.get.responses[200].content).includes(got.headers.get('content-type').split(';')[0]), path);
    assert.equal((await head.text()).length, 0, path);
  }
  for (const path of ['/v1', '/v1/chat', '/v1/chat/completions/', '/v1/models/', '/nothing', '/%ff', '/v1/messages/x'])
    assert.equal((await fetch(base + path)).status, 404, path);
});

test('examples are answered, and what the description forbids is refused by name', async context => {
  const faults = [];
  for (const [path, {post: operation}] of Object.entries(document.paths)) {
    if (!operation) continue;
    const {schema, examples} = operation.requestBody.content['application/json'];
    const ajv = new Ajv({strict: false});
    const valid = ajv.compile(schema);
    let refused = 0;
    for (const [title, {value: example}] of Object.entries(examples)) {
      assert.ok(valid(example), `${path} ${title}: ${ajv.errorsText(valid.errors)}`);
      const answer = await post(path, example);
      assert.equal(answer.status, 200, `${path} ${title}: ${await answer.text()}`);
      for (const [name, keys, , near] of placesOf(schema, example, ajv)) {
        for (const wrong of [undefined, ...wrongValues]) {
          const body = replaced(example, keys, wrong);
          const where = `${path} ${title}: ${name} = ${JSON.stringify(wrong)?.slice(0, 60)}`;
          if (valid(body)) {
            if (wrong === null && (await post(path, body)).status !== (await post(path, replaced(example, keys))).status)
              faults.push(`${where}: is not as good as nothing`);
            continue;
          }
          const answer = await post(path, body);
          const {error} = await answer.json();
          const named = path.startsWith('/v1/messages') ? error?.message : error?.param;
          const names = near !== undefined && (wrong == null || name.endsWith(']')) ? [name, near] : [name];
          if (answer.status >= 400 && answer.status < 500 && names.some(one => named?.startsWith(one))) ++refused;
          else faults.push(`${where}: status ${answer.status} ${JSON.stringify(error)}`);
        }
      }
    }
    context.diagnostic(`${path}: ${refused} wrong bodies refused`);
    assert.ok(refused > 5, path);
  }
  assert.equal(faults.length, 0, faults.slice(0, 30).join("\n"));
});
