// Serves dist/ and answers the protocol with scripted streams. The last user message names the script.
import {createServer} from 'node:http';
import {readFileSync} from 'node:fs';

const pause = ms => new Promise(resolve => setTimeout(resolve, ms));
const types = {'index.html': 'text/html; charset=utf-8', 'app.js': 'text/javascript', 'app.css': 'text/css'};
const usage = {prompt_tokens: 100, completion_tokens: 12, prompt_cache_hit_tokens: 75, prompt_cache_miss_tokens: 25};
const answer = 'Here is **bold** text and $x^2$.\n\n$$\\int_0^1 x\\,dx = \\tfrac{1}{2}$$\n\n```python\ndef toast(bread):\n    return "done"  # golden\n```\n\n' +
  '| a | b |\n|---|---|\n| 1 | 2 |\n\n<script>window.hacked = 1</script>';

/// Starts on a free port. `requests` collects the bodies of chat requests; `metrics` may be replaced.
export async function startMock() {
  const mock = {requests: [], metrics: '', busy: 0};
  const server = createServer(async (request, response) => {
    const name = request.url === '/' ? 'index.html' : request.url.slice(1);
    if (types[name]) {
      response.writeHead(200, {'Content-Type': types[name]});
      return response.end(readFileSync(new URL(`../dist/${name}`, import.meta.url)));
    }
    const json = (status, body, headers = {}) => { response.writeHead(status, {'Content-Type': 'application/json', ...headers}); response.end(JSON.stringify(body)); };
    if (name === 'v1/models') return json(200, {data: [{id: 'toaster-builtin'}]});
    if (name === 'metrics') return mock.metrics ? response.end(mock.metrics) : json(404, {});
    if (name === 'slots') return json(200, [{id: 0, is_processing: true, n_past: 42}]);
    if (name === 'props') return json(200, {model_alias: 'toaster-builtin'});
    if (name !== 'v1/chat/completions') return json(404, {error: {message: 'No such path.'}});
    let text = '';
    for await (const part of request) text += part;
    const body = JSON.parse(text);
    mock.requests.push(body);
    const script = body.messages.findLast(message => message.role === 'user').content;
    if (/busy/.test(script) && mock.busy++ === 0) return json(429, {error: {message: 'All places are taken.'}}, {'Retry-After': '1'});
    if (/loading/.test(script) && mock.busy++ === 0) return json(503, {error: {message: 'The model is loading.'}}, {'Retry-After': '1'});
    if (/refuse/.test(script)) return json(400, {error: {message: 'max_tokens is too large; ask for fewer.'}});
    response.writeHead(200, {'Content-Type': 'text/event-stream'});
    const send = event => response.write(`data: ${typeof event === 'string' ? event : JSON.stringify(event)}\n\n`);
    const delta = (value, finish_reason = null) => send({choices: [{index: 0, delta: value, finish_reason}]});
    delta({role: 'assistant', content: ''});
    response.write(': keep-alive\n\n');
    for (const word of ['Let me ', 'think.']) { delta({reasoning_content: word}); await pause(30); }
    if (/slow/.test(script)) for (let i = 0; i < 200 && !response.destroyed; ++i) { delta({content: `word${i} `}); await pause(50); }
    if (/break/.test(script)) { delta({content: 'half an ans'}); await pause(50); return response.destroy(); }
    if (/fail/.test(script)) { send({error: {message: 'Out of memory; lower the context.'}}); return response.end(); }
    if (/tool/.test(script)) {
      delta({tool_calls: [{index: 0, id: 'call_1', type: 'function', function: {name: 'weather', arguments: ''}}]});
      for (const part of ['{"city":', '"Paris"}']) delta({tool_calls: [{index: 0, function: {arguments: part}}]});
      delta({}, 'tool_calls');
    } else {
      for (const part of answer.match(/[^]{1,9}/g)) { delta({content: part}); await pause(1); }
      delta({}, 'stop');
    }
    send({choices: [], usage});
    send('[DONE]');
    response.end();
  });
  await new Promise(resolve => server.listen(0, '127.0.0.1', resolve));
  mock.url = `http://127.0.0.1:${server.address().port}/`;
  mock.close = () => { server.closeAllConnections(); server.close(); };
  return mock;
}
