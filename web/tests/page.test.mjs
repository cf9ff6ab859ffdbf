// Clicks through the page in a headless Chromium. Screenshots go to TOASTER_SCREENSHOTS when it names a folder.
import assert from 'node:assert/strict';
import {after, before, beforeEach, test} from 'node:test';
import {mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import puppeteer from 'puppeteer-core';
import {startMock} from './mock_server.mjs';

const axe = readFileSync(new URL('../node_modules/axe-core/axe.min.js', import.meta.url), 'utf8');
const shots = process.env.TOASTER_SCREENSHOTS;
const scratch = mkdtempSync(join(tmpdir(), 'toaster-web-'));
let mock, browser, context, page;

before(async () => {
  mock = await startMock();
  browser = await puppeteer.launch({executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox']});
});
after(async () => { await browser?.close(); mock?.close(); rmSync(scratch, {recursive: true}); });

beforeEach(async () => {
  await context?.close();
  context = await browser.createBrowserContext();
  page = await context.newPage();
  page.setDefaultTimeout(10000);
  await page.setViewport({width: 1280, height: 800});
  page.on('request', request => assert.ok(/^(data|blob):/.test(request.url()) || request.url().startsWith(mock.url), request.url()));
  page.on('dialog', dialog => dialog.accept());
  mock.requests.length = 0;
  mock.busy = 0;
  mock.metrics = '';
  await page.goto(mock.url);
  await page.waitForSelector('.composer');
});

async function type(text) { await page.type('.composer textarea', text); await page.keyboard.press('Enter'); }
const idle = () => page.waitForSelector('.send');
async function ask(text) {
  const before = (await page.$$('.assistant')).length;
  await type(text);
  await page.waitForFunction(count => document.querySelectorAll('.assistant').length > count && document.querySelector('.send'), {}, before);
}
const texts = selector => page.$$eval(selector, found => found.map(element => element.textContent));
const click = text => page.locator(`::-p-text(${text})`).click();
async function shoot(name) {
  if (!shots) return;
  mkdirSync(shots, {recursive: true});
  await page.screenshot({path: join(shots, `${name}.png`)});
}

test('a reply is rendered, safe, metered, and its code copied', async () => {
  await ask('hello');
  assert.equal(await page.$eval('.text strong', element => element.textContent), 'bold');
  assert.equal((await page.$$('.text math')).length, 2);
  assert.ok(await page.$('.hljs-keyword'));
  assert.equal(await page.evaluate(() => window.hacked), undefined);
  assert.match((await texts('.meters'))[0], /12 tokens .* 75 % from cache/);
  assert.match((await texts('.reasoning summary'))[0], /^Thought for [\d.]+ s$/);
  assert.equal(await page.$eval('.reasoning', element => element.open), false);
  await context.overridePermissions(mock.url, ['clipboard-read', 'clipboard-write', 'clipboard-sanitized-write']);
  await page.click('.copy');
  await page.waitForFunction(() => document.querySelector('.copy').textContent === 'Copied');
  assert.match(await page.evaluate(() => navigator.clipboard.readText()), /^def toast/);
});

test('settings reach the request', async () => {
  await click('Settings');
  await page.type('.settings textarea', 'Be brief.');
  await page.select('.settings select', 'off');
  await page.type('.settings input', '0.5');
  await ask('hello');
  const [body] = mock.requests;
  assert.deepEqual(body.messages[0], {role: 'system', content: 'Be brief.'});
  assert.deepEqual(body.thinking, {type: 'disabled'});
  assert.equal(body.temperature, 0.5);
  await page.select('.settings select', 'max');
  await ask('again');
  assert.equal(mock.requests[1].reasoning_effort, 'max');
  assert.equal(mock.requests[1].messages.length, 4);
});

test('regenerating and editing make branches that can be walked', async () => {
  await ask('first');
  await click('Regenerate');
  await page.waitForSelector('.stop'); await idle();
  assert.match((await texts('.branches'))[0], /2\/2/);
  await page.click('[aria-label="Previous version"]');
  await page.waitForFunction(() => document.querySelector('.branches').textContent.includes('1/2'));
  await click('Edit');
  await page.type('.edit textarea', ' changed');
  await page.keyboard.press('Tab'); await page.keyboard.press('Enter');
  await page.waitForSelector('.stop'); await idle();
  assert.equal((await texts('.plain'))[0], 'first changed');
  assert.equal(mock.requests.at(-1).messages.length, 1);
  await page.click('[aria-label="Previous version"]');
  await page.waitForFunction(() => document.querySelector('.plain').textContent === 'first');
});

test('tool calls are shown and sent back with their reasoning', async () => {
  await ask('tool');
  assert.match((await texts('.call'))[0], /weather.*\{"city":"Paris"\}/s);
  await ask('and now');
  const turn = mock.requests[1].messages[1];
  assert.equal(turn.reasoning_content, 'Let me think.');
  assert.equal(turn.tool_calls[0].function.arguments, '{"city":"Paris"}');
});

test('Stop and Escape keep what arrived', async () => {
  for (const stop of [() => page.click('.stop'), () => page.keyboard.press('Escape')]) {
    await type('slow');
    await page.waitForFunction(() => [...document.querySelectorAll('.assistant .text')].at(-1)?.textContent.includes('word3'));
    await stop();
    await idle();
    assert.equal((await texts('.note')).at(-1), 'Stopped.');
  }
});

test('a reload in mid-stream keeps the part that was saved', async () => {
  await type('slow');
  await page.waitForFunction(() => document.querySelector('.assistant .text')?.textContent.includes('word20'));
  await page.reload();
  await page.waitForSelector('.error');
  assert.match((await texts('.assistant .text'))[0], /word5/);
  assert.match((await texts('.error'))[0], /closed before this reply ended/);
});

test('errors are shown with their remedy', async () => {
  for (const [script, expected] of [['refuse', /ask for fewer/], ['break', /connection broke/], ['fail', /lower the context/]]) {
    await ask(script);
    assert.match((await texts('.error')).at(-1), expected);
  }
});

test('a busy and a loading server are asked again', async () => {
  for (const [script, expected] of [['busy', 'places are taken'], ['loading', 'is loading']]) {
    mock.busy = 0;
    await type(script);
    await page.waitForFunction(wanted => document.querySelector('.notice')?.textContent.includes(wanted), {}, expected);
    await idle();
    assert.equal(await page.$('.notice'), null);
    assert.equal(await page.$('.error'), null);
  }
});

test('conversations: rename, folder, search, export, import, temporary, delete', async () => {
  await ask('about bread');
  await page.keyboard.down('Control'); await page.keyboard.down('Shift'); await page.keyboard.press('o');
  await page.keyboard.up('Shift'); await page.keyboard.up('Control');
  await ask('about <b>butter</b>');
  assert.deepEqual(await texts('.sidebar .title'), ['about <b>butter</b>', 'about bread']);
  await page.click('.more');
  await page.$eval('[name=title]', input => { input.value = 'Butter'; });
  await page.type('[name=folder]', 'Dairy');
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => document.querySelector('.sidebar h2')?.textContent === 'Dairy');
  await page.type('[type=search]', 'ABOUT BREAD');
  await page.waitForFunction(() => document.querySelectorAll('.sidebar .title').length === 1);
  await page.$eval('[type=search]', input => { input.value = ''; input.dispatchEvent(new Event('input', {bubbles: true})); });
  const session = await browser.target().createCDPSession();
  await session.send('Browser.setDownloadBehavior', {behavior: 'allow', downloadPath: scratch, browserContextId: context.id, eventsEnabled: true});
  const finished = () => new Promise(resolve => session.on('Browser.downloadProgress', event => { if (event.state === 'completed') resolve(); }));
  let done = finished(); await click('Export'); await done;
  const exported = join(scratch, 'toaster-conversations.json');
  assert.equal(JSON.parse(readFileSync(exported, 'utf8')).conversations.length, 2);
  done = finished(); await click('Markdown'); await done;
  assert.match(readFileSync(join(scratch, 'conversation.md'), 'utf8'), /^# Butter\n\n## You\n\nabout <b>/);
  await (await page.$('.import')).uploadFile(exported);
  await page.waitForFunction(() => document.querySelectorAll('.sidebar .title').length === 4);
  writeFileSync(join(scratch, 'bad.json'), '{"format":"toaster-conversations-1","conversations":[{"messages":{"a":{"role":"user","content":"x","parent":"a"}}}]}');
  await (await page.$('.import')).uploadFile(join(scratch, 'bad.json'));
  await page.waitForFunction(() => document.querySelector('.notice')?.textContent.includes('do not form a tree'));
  await page.click('.temporary');
  await ask('secret');
  await page.reload();
  await page.waitForFunction(() => document.querySelectorAll('.sidebar .title').length === 4);
  await page.click('.more');
  await click('Delete');
  await page.waitForFunction(() => document.querySelectorAll('.sidebar .title').length === 3);
});

test('files become text, binaries are refused', async () => {
  writeFileSync(join(scratch, 'a.txt'), 'one ``` two');
  writeFileSync(join(scratch, 'b.bin'), '\0\x01');
  const input = await page.$('.composer [type=file]');
  await input.uploadFile(join(scratch, 'a.txt'));
  await page.waitForFunction(() => document.querySelector('.composer textarea').value.includes('a.txt:\n````\none ``` two\n````'));
  await (await page.$('.composer [type=file]')).uploadFile(join(scratch, 'b.bin'));
  await page.waitForFunction(() => document.querySelector('.notice')?.textContent.includes('b.bin is not text'));
});

test('the machine page shows what is reported and says what is not', async () => {
  await click('Machine');
  await page.waitForFunction(() => document.querySelector('.machine')?.textContent.includes('not reported'));
  mock.metrics = '# TYPE x counter\ntoaster_generated_tokens_total 10\ntoaster_prompt_cache_hit_tokens_total 3\n' +
    'toaster_prompt_cache_miss_tokens_total 1\ntoaster_memory_bytes{tier="RAM"} 2e9\ntoaster_limit_share 0.87\n' +
    'toaster_experts_used_total 8\ntoaster_experts_missed_total 1\ntoaster_read_bytes_total{tier="memory"} 9e9\ntoaster_read_bytes_total{tier="disk"} 3e6\n';
  await page.waitForFunction(() => document.querySelector('.machine').textContent.includes('75.0 %'));
  assert.match((await texts('.machine'))[0], /RAM2\.00 GB/);
  assert.match((await texts('.machine'))[0], /Share of the limit87\.0 %/);
  assert.match((await texts('.machine'))[0], /Found in memory87\.5 %Read3\.0 MBWaited fornot reported/);
  assert.match((await texts('.machine'))[0], /Money savednot reported/);
});

test('axe finds nothing, in light and dark, on a phone and a desktop', async () => {
  await ask('hello');
  await ask('refuse');
  const found = [];
  for (const scheme of ['light', 'dark']) for (const [size, width] of [['phone', 390], ['desktop', 1280]]) {
    await page.emulateMediaFeatures([{name: 'prefers-color-scheme', value: scheme}, {name: 'prefers-reduced-motion', value: 'reduce'}]);
    await page.setViewport({width, height: 800});
    for (const view of ['chat', 'settings', 'machine']) {
      await page.evaluate(hash => { location.hash = hash; }, view === 'machine' ? '#machine' : '');
      await page.waitForSelector(view === 'machine' ? '.machine' : '.composer');
      if (view === 'settings') { await click('Settings'); await page.waitForSelector('.settings'); }
      // The checker itself is evaluated past the page's content security policy.
      await page.evaluate(axe);
      const result = await page.evaluate(() => axe.run());
      found.push(...result.violations.map(violation => `${scheme} ${size} ${view}: ${violation.id} ${violation.nodes[0].html}`));
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${size} ${view} is too wide`);
      await shoot(`${view}-${size}-${scheme}`);
      if (view === 'settings') await click('Settings');
    }
  }
  assert.deepEqual(found, []);
});
