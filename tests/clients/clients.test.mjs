// Official clients against the server with recorded replies (replay_server). REPLAY_SERVER names it.
import {after, before, test} from 'node:test';
import assert from 'node:assert/strict';
import OpenAI from 'openai';
import Anthropic from '@anthropic-ai/sdk';
import {generateText, jsonSchema, stepCountIs, streamText, tool} from 'ai';
import {createOpenAICompatible} from '@ai-sdk/openai-compatible';
import {createAnthropic} from '@ai-sdk/anthropic';
import {createDeepSeek} from '@ai-sdk/deepseek';
import {startReplayServer} from './replay.mjs';
import {untilIdle} from './until_idle.mjs';

const model = 'toaster-replay';
const schema = {type: 'object', properties: {city: {type: 'string'}}, required: ['city']};
let server, base, openai, anthropic;

before(async () => {
  server = await startReplayServer();
  base = server.base;
  openai = new OpenAI({baseURL: `${base}/v1`, apiKey: 'none', maxRetries: 0});
  anthropic = new Anthropic({baseURL: base, apiKey: 'none', maxRetries: 0});
});
after(() => server.stop());

const ask = text => [{role: 'user', content: text}];

test('openai: chat, whole', async () => {
  const answer = await openai.chat.completions.create({model, messages: ask('Hi')});
  assert.equal(answer.choices[0].message.content, 'Hello, wörld!');
  assert.equal(answer.choices[0].message.reasoning_content, 'I think.');
  assert.equal(answer.choices[0].finish_reason, 'stop');
  assert.equal(answer.usage.prompt_tokens + answer.usage.completion_tokens, answer.usage.total_tokens);
  assert.equal(answer.usage.prompt_cache_hit_tokens + answer.usage.prompt_cache_miss_tokens, answer.usage.prompt_tokens);
});

test('openai: chat, streamed, with usage and log probabilities', async () => {
  const stream = await openai.chat.completions.create({model, messages: ask('Hi'), stream: true,
    stream_options: {include_usage: true}, logprobs: true, top_logprobs: 1});
  let content = '', reasoning = '', usage, logprobs = 0;
  for await (const chunk of stream) {
    content += chunk.choices[0]?.delta.content ?? '';
    reasoning += chunk.choices[0]?.delta.reasoning_content ?? '';
    logprobs += chunk.choices[0]?.logprobs?.content?.length ?? 0;
    usage = chunk.usage ?? usage;
  }
  assert.equal(content, 'Hello, wörld!');
  assert.equal(reasoning, 'I think.');
  assert.equal(logprobs, Buffer.byteLength(content));
  assert.ok(usage.completion_tokens > 10);
});

test('openai: parallel tool calls, and the turn after them', async () => {
  const tools = [{type: 'function', function: {name: 'weather', parameters: schema}}];
  const messages = ask('Weather in both cities?');
  const stream = openai.chat.completions.stream({model, messages, tools});
  const answer = await stream.finalChatCompletion();
  const calls = answer.choices[0].message.tool_calls;
  assert.equal(answer.choices[0].finish_reason, 'tool_calls');
  assert.deepEqual(calls.map(call => JSON.parse(call.function.arguments)), [{city: 'Oslo'}, {city: 'Lima "é"'}]);
  messages.push({role: 'assistant', content: answer.choices[0].message.content, tool_calls:
    calls.map(({id, type, function: {name, arguments: text}}) => ({id, type, function: {name, arguments: text}}))});
  for (const call of calls) messages.push({role: 'tool', tool_call_id: call.id, content: 'sunny'});
  const last = await openai.chat.completions.create({model, messages, tools});
  assert.equal(last.choices[0].message.content, 'Both are sunny.');
  // Sampled bytes and dropped reasoning are put back: everything the model has seen is in the cache.
  assert.ok(last.usage.prompt_cache_hit_tokens >= answer.toaster?.cache_hit_tokens ?? 0);
  assert.ok(last.usage.prompt_cache_miss_tokens < 120, `${last.usage.prompt_cache_miss_tokens} missed`);
});

test('openai: text completion, models, long input', async () => {
  const text = await openai.completions.create({model, prompt: 'Once', suffix: 'end', max_tokens: 50});
  assert.equal(text.choices[0].text, 'Hello, wörld!');
  assert.equal((await openai.models.list()).data[0].id, model);
  const long = await openai.chat.completions.create({model, messages: ask('word '.repeat(100000))});
  assert.ok(long.usage.prompt_tokens > 500000);
});

test('openai: errors carry status and field', async () => {
  await assert.rejects(openai.chat.completions.create({model, messages: ask('Hi'), temperature: 9}),
    error => error instanceof OpenAI.BadRequestError && error.param === 'temperature');
  await assert.rejects(openai.chat.completions.create({model: 'gpt-9', messages: ask('Hi')}),
    error => error instanceof OpenAI.NotFoundError && error.code === 'model_not_found');
  await assert.rejects(openai.chat.completions.create({model, messages: ask('fail now')}),
    error => error instanceof OpenAI.InternalServerError);
});

test('openai: an abort ends the job', async () => {
  const stream = await openai.chat.completions.create({model, messages: ask('go on for ever'), stream: true});
  for await (const chunk of stream) if (chunk.choices[0].delta.content) break;
  await untilIdle(base);
});

test('openai: responses, whole, streamed, continued', async () => {
  const first = await openai.responses.create({model, input: 'Hi'});
  assert.equal(first.output_text, 'Hello, wörld!');
  const tools = [{type: 'function', name: 'weather', parameters: schema, strict: false}];
  const stream = openai.responses.stream({model, input: 'Weather in both cities?', tools, previous_response_id: first.id});
  const types = new Set();
  for await (const event of stream) types.add(event.type);
  const answer = await stream.finalResponse();
  const calls = answer.output.filter(item => item.type === 'function_call');
  assert.equal(calls.length, 2);
  assert.ok(types.has('response.function_call_arguments.delta') && types.has('response.completed'));
  const last = await openai.responses.create({model, tools, previous_response_id: answer.id,
    input: calls.map(call => ({type: 'function_call_output', call_id: call.call_id, output: 'sunny'}))});
  assert.equal(last.output_text, 'Both are sunny.');
});

test('anthropic: messages, whole and streamed', async () => {
  const body = {model: 'claude-any', max_tokens: 1000, messages: ask('Hi')};
  const whole = await anthropic.messages.create(body);
  assert.deepEqual(whole.content, [{type: 'text', text: 'Hello, wörld!'}]);
  const stream = anthropic.messages.stream({...body, thinking: {type: 'enabled', budget_tokens: 500}});
  const final = await stream.finalMessage();
  assert.equal(final.content[0].thinking, 'I think.');
  assert.equal(final.content[1].text, 'Hello, wörld!');
  assert.equal(final.stop_reason, 'end_turn');
  assert.ok(final.usage.output_tokens > 10);
  assert.ok((await anthropic.messages.countTokens({model, messages: ask('Hi')})).input_tokens > 3);
});

test('anthropic: tools', async () => {
  const tools = [{name: 'weather', input_schema: schema}];
  const messages = ask('Weather in both cities?');
  const body = {model, max_tokens: 1000, tools, thinking: {type: 'enabled', budget_tokens: 500}};
  const answer = await anthropic.messages.stream({...body, messages}).finalMessage();
  const calls = answer.content.filter(block => block.type === 'tool_use');
  assert.equal(answer.stop_reason, 'tool_use');
  assert.deepEqual(calls.map(call => call.input), [{city: 'Oslo'}, {city: 'Lima "é"'}]);
  const last = await anthropic.messages.create({...body, messages: [...messages, {role: 'assistant', content: answer.content},
    {role: 'user', content: calls.map(call => ({type: 'tool_result', tool_use_id: call.id, content: 'sunny'}))}]});
  assert.equal(last.content.at(-1).text, 'Both are sunny.');
  assert.ok(last.usage.cache_read_input_tokens > last.usage.input_tokens);
});

test('anthropic: errors and aborts', async () => {
  await assert.rejects(anthropic.messages.create({model, max_tokens: 0, messages: ask('Hi')}), Anthropic.BadRequestError);
  const stream = anthropic.messages.stream({model, max_tokens: 1000, messages: ask('go on for ever')});
  stream.on('text', () => stream.abort());
  await assert.rejects(stream.finalMessage());
  await untilIdle(base);
});

for (const [name, make] of [
  ['openai-compatible', () => createOpenAICompatible({name: 'toaster', baseURL: `${base}/v1`, apiKey: 'none'})(model)],
  ['anthropic', () => createAnthropic({baseURL: `${base}/v1`, apiKey: 'none'})(model)],
  ['deepseek', () => createDeepSeek({baseURL: base, apiKey: 'none'})(model)],
]) {
  test(`ai with ${name}`, async () => {
    const whole = await generateText({model: make(), prompt: 'Hi', maxRetries: 0});
    assert.equal(whole.text, 'Hello, wörld!');
    assert.ok(whole.usage.outputTokens > 5);

    const stream = streamText({model: make(), prompt: 'Hi', maxRetries: 0});
    let text = '';
    for await (const part of stream.textStream) text += part;
    assert.equal(text, 'Hello, wörld!');
    if (name !== 'anthropic') assert.equal(await stream.reasoningText, 'I think.');

    const cities = [];
    const tooled = await generateText({model: make(), prompt: 'Weather in both cities?', maxRetries: 0, stopWhen: stepCountIs(3),
      tools: {weather: tool({description: 'Tells the weather', inputSchema: jsonSchema(schema),
        execute: async ({city}) => { cities.push(city); return 'sunny'; }})}});
    assert.deepEqual(cities, ['Oslo', 'Lima "é"']);
    assert.equal(tooled.text, 'Both are sunny.');

    const abort = new AbortController();
    const endless = streamText({model: make(), prompt: 'go on for ever', maxRetries: 0, abortSignal: abort.signal, onError() {}});
    try { for await (const part of endless.textStream) if (part) abort.abort(); } catch { /* as asked */ }
    await untilIdle(base);
    await assert.rejects(generateText({model: make(), prompt: 'fail now', maxRetries: 0}));
  });
}
