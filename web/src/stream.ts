// One streamed chat request. Failures arrive as Errors whose message is fit to show.
import type {ToolCall, Usage} from './conversation';

export interface Update {
  reasoning?: string; content?: string; finish?: string; usage?: Usage;
  call?: Partial<ToolCall> & {index: number};
}

async function failure(response: Response): Promise<string> {
  let message = '';
  try { message = (await response.json())?.error?.message ?? ''; } catch { /* not in the protocol's shape */ }
  if (response.status === 401) return `${message || 'The server wants a key.'} Reach the page through a proxy that adds it.`;
  if (message) return message;
  return `The server answered ${response.status} ${response.statusText}. Try again; its log says more.`;
}

function pause(seconds: number, signal: AbortSignal) {
  return new Promise<void>((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal.addEventListener('abort', () => { clearTimeout(timer); reject(signal.reason); }, {once: true});
  });
}

/// Sends `body`; while the server is busy (429) or loading (503), says so and asks again up to 20 times.
export async function streamChat(body: object, signal: AbortSignal, onUpdate: (update: Update) => void,
                                 onWait: (text: string) => void): Promise<void> {
  let response: Response;
  for (let attempt = 0; ; ++attempt) {
    try {
      response = await fetch('/v1/chat/completions',
        {method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(body), signal});
    } catch (error) {
      if (signal.aborted) throw error;
      throw new Error('The server cannot be reached. Check that it is running, then try again.');
    }
    if ((response.status !== 429 && response.status !== 503) || attempt === 20) break;
    const given = Number(response.headers.get('Retry-After'));
    const seconds = given > 0 ? Math.min(given, 600) : 2;
    onWait(`${await failure(response)} Trying again in ${seconds} s.`);
    await pause(seconds, signal);
  }
  onWait('');
  if (!response.ok || !response.body) throw new Error(await failure(response));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  let done = false;
  for (;;) {
    let part;
    try { part = await reader.read(); } catch (error) {
      if (signal.aborted) throw error;
      break;
    }
    if (part.done) break;
    const lines = (rest + part.value).split(/\r?\n/);
    rest = lines.pop()!;
    for (const line of lines) {
      if (!line.startsWith('data:')) continue;
      const data = line.slice(5).trim();
      if (data === '[DONE]') { done = true; continue; }
      let event: any;
      try { event = JSON.parse(data); } catch { throw new Error('The server sent a line that is not JSON. Regenerate the reply.'); }
      if (event.error) throw new Error(event.error.message ?? 'The server stopped with an error. Regenerate the reply.');
      if (event.usage) onUpdate({usage: event.usage});
      const choice = event.choices?.[0];
      if (!choice) continue;
      onUpdate({reasoning: choice.delta?.reasoning_content || undefined, content: choice.delta?.content || undefined,
        finish: choice.finish_reason || undefined});
      for (const call of choice.delta?.tool_calls ?? [])
        onUpdate({call: {index: call.index ?? 0, id: call.id, name: call.function?.name, arguments: call.function?.arguments}});
    }
  }
  if (!done) throw new Error('The connection broke before the reply ended. What arrived is kept; regenerate to try again.');
}
