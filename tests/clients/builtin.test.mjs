// Official clients against `toaster serve` with the built-in model. TOASTER names the program.
import {after, before, test} from 'node:test';
import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import {createInterface} from 'node:readline';
import OpenAI from 'openai';
import Anthropic from '@anthropic-ai/sdk';
import {generateText, jsonSchema, stepCountIs, streamText, tool} from 'ai';
import {createOpenAICompatible} from '@ai-sdk/openai-compatible';
import {createAnthropic} from '@ai-sdk/anthropic';
import {createDeepSeek} from '@ai-sdk/deepseek';
import {untilIdle} from './until_idle.mjs';

const model = 'toaster-builtin';
const schema = {type: 'object', properties: {expression: {type: 'string'}}, required: ['expression']};
const hello = 'I am Toaster, a very small model.';
const ask = text => [{role: 'user', content: text}];
const long_text = Array.from({length: 900}, (_, i) => `The ${i}th house by the sea is quiet.`).join(' ');
let server, base, openai, anthropic;

async function start(...more) {
  const program = spawn(process.env.TOASTER, ['serve', '--port', '0', '-q', ...more], {stdio: ['ignore', 'pipe', 'inherit']});
  const address = await new Promise(resolve => createInterface(program.stdout).once('line', resolve));
  return {address, stop: () => new Promise(resolve => { program.once('exit', resolve); program.kill('SIGTERM'); })};
}

before(async () => {
  server = await start();
  base = server.address;
  openai = new OpenAI({baseURL: `${base}/v1`, apiKey: 'none', maxRetries: 0});
  anthropic = new Anthropic({baseURL: base, apiKey: 'none', maxRetries: 0});
});
after(() => server.stop());

test('openai: the same whole and streamed, with usage and log probabilities', async () => {
  const request = {model, messages: ask('Who are you?'), temperature: 0, max_tokens: 60, thinking: {type: 'disabled'},
    logprobs: true, top_logprobs: 3};
  const whole = await openai.chat.completions.create(request);
  assert.equal(whole.choices[0].message.content, hello);
  assert.equal(whole.choices[0].finish_reason, 'stop');
  assert.equal(whole.usage.prompt_tokens + whole.usage.completion_tokens, whole.usage.total_tokens);
  const tokens = whole.choices[0].logprobs.content;
  assert.equal(tokens.map(token => token.token).join(''), hello);
  for (const token of tokens) {
    assert.equal(token.top_logprobs.length, 3);
    assert.equal(token.top_logprobs[0].token, token.token);  // temperature 0 takes the likeliest
    assert.equal(token.top_logprobs[0].logprob, token.logprob);
    assert.ok(token.logprob <= 0 && token.top_logprobs[1].logprob <= token.logprob);
  }
  let content = '', usage;
  const streamed = [];
  for await (const chunk of await openai.chat.completions.create({...request, stream: true, stream_options: {include_usage: true}})) {
    content += chunk.choices[0]?.delta.content ?? '';
    streamed.push(...chunk.choices[0]?.logprobs?.content ?? []);
    usage = chunk.usage ?? usage;
  }
  assert.equal(content, hello);
  assert.deepEqual(streamed, tokens);
  assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
  assert.equal(usage.prompt_cache_hit_tokens + usage.prompt_cache_miss_tokens, usage.prompt_tokens);
});

test('openai: reasoning, a tool call, and the turn after it', async () => {
  const tools = [{type: 'function', function: {name: 'calculator', description: 'Computes.', parameters: schema}}];
  const messages = ask('What is 12 * 7?');
  const first = (await openai.chat.completions.create({model, messages, tools, temperature: 0, max_tokens: 200})).choices[0];
  assert.equal(first.finish_reason, 'tool_calls');
  assert.match(first.message.reasoning_content, /I need/);
  const [call] = first.message.tool_calls;
  assert.equal(call.function.name, 'calculator');
  assert.match(JSON.parse(call.function.arguments).expression, /\d/);
  messages.push(first.message, {role: 'tool', tool_call_id: call.id, content: '84'});
  const last = await openai.chat.completions.create({model, messages, tools, temperature: 0, max_tokens: 200});
  assert.match(last.choices[0].message.content, /84/);
  assert.ok(last.usage.prompt_cache_hit_tokens > last.usage.prompt_cache_miss_tokens);
});

test('openai: responses, text completion, seeds, several choices', async () => {
  const response = await openai.responses.create({model, input: 'Who are you?', temperature: 0, max_output_tokens: 120});
  assert.ok(response.output_text.length > 0);
  const complete = seed => openai.completions.create({model, prompt: 'In the beginning', max_tokens: 12, seed});
  const [one, again, other] = [await complete(1), await complete(1), await complete(2)].map(answer => answer.choices[0].text);
  assert.equal(one, again);
  assert.notEqual(one, other);
  const choices = (await openai.completions.create({model, prompt: 'In the beginning', max_tokens: 12, seed: 1, n: 3})).choices;
  assert.equal(choices.length, 3);
  assert.equal(choices[0].text, one);
  assert.equal(choices[1].text, other);
});

test('openai and anthropic: a long input is read once', async () => {
  const whole = await openai.chat.completions.create({model, messages: ask(`${long_text}\nWho are you?`), max_tokens: 4, temperature: 0});
  assert.ok(whole.usage.prompt_tokens > 5000);
  assert.equal(whole.usage.prompt_cache_hit_tokens, 0);
  const again = await openai.chat.completions.create({model, messages: ask(`${long_text}\nWho are you?`), max_tokens: 4, temperature: 0});
  assert.equal(again.usage.prompt_cache_miss_tokens, 1);
  const plain = {model, prompt: long_text, max_tokens: 4, temperature: 0};
  await openai.completions.create(plain);
  assert.equal((await openai.completions.create(plain)).usage.prompt_tokens_details.cached_tokens + 1,
    (await openai.completions.create({...plain, max_tokens: 1})).usage.prompt_tokens);
  assert.equal(again.choices[0].message.content, whole.choices[0].message.content);
  const message = await anthropic.messages.create({model, max_tokens: 4, messages: ask(`${long_text}\nWhat is your name?`)});
  assert.ok(message.usage.cache_read_input_tokens > 4000);
  await assert.rejects(openai.chat.completions.create({model, messages: ask(long_text.repeat(20))}), OpenAI.BadRequestError);
  await assert.rejects(anthropic.messages.create({model, max_tokens: 4, messages: ask(long_text.repeat(20))}), Anthropic.BadRequestError);
});

test('openai and anthropic: an abort ends the job, a refusal is tried again', async () => {
  const small = await start('--parallel', '1', '--max-waiting', '1');
  try {
    const client = new OpenAI({baseURL: `${small.address}/v1`, apiKey: 'none', maxRetries: 3});
    const endless = () => client.chat.completions.create({model, messages: ask('Hi'), max_tokens: 50000, stream: true, logit_bias: {1: -100}});
    const [running, waiting] = [await endless(), await endless()];
    for await (const chunk of running) if (chunk.choices[0]?.delta) break;  // leaving the loop aborts
    const blocker = await endless();
    await assert.rejects(new OpenAI({baseURL: `${small.address}/v1`, apiKey: 'none', maxRetries: 0})
      .chat.completions.create({model, messages: ask('Hi')}), OpenAI.RateLimitError);
    const retried = client.chat.completions.create({model, messages: ask('Who are you?'), temperature: 0, max_tokens: 60, thinking: {type: 'disabled'}});
    const other = new Anthropic({baseURL: small.address, apiKey: 'none', maxRetries: 3})
      .messages.create({model, max_tokens: 60, temperature: 0, messages: ask('Who are you?')});
    await new Promise(resolve => setTimeout(resolve, 500));
    waiting.controller.abort();
    blocker.controller.abort();
    assert.equal((await retried).choices[0].message.content, hello);
    assert.equal((await other).content.at(-1).text, hello);
    await untilIdle(small.address);
  } finally {
    await small.stop();
  }
});

test('anthropic: streamed, tools, counting', async () => {
  const request = {model, max_tokens: 100, temperature: 0, messages: ask('Who are you?')};
  const events = [];
  const stream = anthropic.messages.stream(request);
  stream.on('streamEvent', event => events.push(event.type));
  const message = await stream.finalMessage();
  assert.equal(message.content.at(-1).text, hello);
  assert.equal(events[0], 'message_start');
  assert.equal(events.at(-1), 'message_stop');
  assert.equal((await anthropic.messages.create(request)).content.at(-1).text, hello);
  assert.equal((await anthropic.messages.countTokens({model, messages: request.messages})).input_tokens,
    message.usage.input_tokens + message.usage.cache_read_input_tokens);
  const tools = [{name: 'calculator', description: 'Computes.', input_schema: schema}];
  const messages = ask('What is 12 * 7?');
  const call = await anthropic.messages.create({...request, max_tokens: 200, messages, tools});
  assert.equal(call.stop_reason, 'tool_use');
  const use = call.content.find(block => block.type === 'tool_use');
  messages.push({role: 'assistant', content: call.content},
    {role: 'user', content: [{type: 'tool_result', tool_use_id: use.id, content: '84'}]});
  assert.match((await anthropic.messages.create({...request, max_tokens: 200, messages, tools})).content.at(-1).text, /84/);
});

for (const [name, make] of [
  ['openai-compatible', () => createOpenAICompatible({name: 'toaster', baseURL: `${base}/v1`, apiKey: 'none'})(model)],
  ['anthropic', () => createAnthropic({baseURL: `${base}/v1`, apiKey: 'none'})(model)],
  ['deepseek', () => createDeepSeek({baseURL: base, apiKey: 'none'})(model)],
]) {
  test(`ai with ${name}`, async () => {
    const request = {model: make(), temperature: 0, maxRetries: 0, maxOutputTokens: 200};
    const whole = await generateText({...request, prompt: 'Who are you?'});
    let text = '';
    for await (const part of streamText({...request, prompt: 'Who are you?'}).textStream) text += part;
    assert.equal(text, whole.text);
    assert.ok(text.length > 0 && whole.usage.outputTokens > 5);
    const asked = [];
    const tooled = await generateText({...request, prompt: 'What is 12 * 7?', stopWhen: stepCountIs(3),
      tools: {calculator: tool({description: 'Computes.', inputSchema: jsonSchema(schema),
        execute: async ({expression}) => { asked.push(expression); return '84'; }})}});
    assert.ok(asked.length > 0);
    assert.match(tooled.text, /84/);
    const abort = new AbortController();
    const endless = streamText({...request, maxOutputTokens: 50000, prompt: long_text, abortSignal: abort.signal, onError() {}});
    setTimeout(() => abort.abort(), 50);
    try { for await (const part of endless.textStream) void part; } catch { /* as asked */ }
    await untilIdle(base);
    await assert.rejects(generateText({...request, prompt: long_text.repeat(20)}));
  });
}
