// One message: its text, reasoning, tool calls, meters and what can be done with it.
import {useMemo, useState} from 'preact/hooks';
import type {Message} from './conversation';
import {toHtml} from './markdown';

const seconds = (value: number) => value < 60 ? `${value.toFixed(1)} s` : `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;

function Meters({message}: {message: Message}) {
  const usage = message.usage;
  if (!usage) return null;
  const hit = usage.prompt_cache_hit_tokens;
  const share = hit === undefined || !usage.prompt_tokens ? null : Math.round(100 * hit / usage.prompt_tokens);
  return <span class="meters">
    {usage.completion_tokens} tokens{message.seconds ? ` · ${(usage.completion_tokens / message.seconds).toFixed(1)}/s` : ''}
    {' · '}prompt {usage.prompt_tokens}{share === null ? '' : `, ${share} % from cache`}
  </span>;
}

async function onCopy(event: Event) {
  const button = event.target as HTMLElement;
  if (!button.classList.contains('copy')) return;
  try {
    await navigator.clipboard.writeText(button.closest('.code')!.querySelector('code')!.textContent!);
    button.textContent = 'Copied';
  } catch { button.textContent = 'Select and copy by hand'; }
  setTimeout(() => { button.textContent = 'Copy'; }, 1500);
}

export interface MessageActions {
  busy: boolean; position: number; count: number;
  onEdit(text: string): void; onRegenerate(): void; onBranch(step: number): void;
}

export function MessageView({message, actions}: {message: Message; actions: MessageActions}) {
  const [draft, setDraft] = useState<string | null>(null);
  const html = useMemo(() => message.role === 'assistant' ? toHtml(message.content) : '', [message.content, message.role]);
  const thinking = message.streaming && !message.content && !message.calls?.length;
  return <li class={`message ${message.role}`}>
    <h2 class="hidden">{message.role === 'user' ? 'You' : 'Toaster'}</h2>
    {message.reasoning && <details class="reasoning">
      <summary>{thinking ? 'Thinking…' : `Thought for ${seconds(message.reasoningSeconds ?? 0)}`}</summary>
      <div class="thought">{message.reasoning}</div>
    </details>}
    {draft !== null ? <form class="edit" onSubmit={event => { event.preventDefault(); setDraft(null); actions.onEdit(draft); }}>
      <textarea aria-label="Edit message" value={draft} rows={4} onInput={event => setDraft(event.currentTarget.value)} />
      <div><button class="primary" disabled={!draft.trim()}>Send</button> <button type="button" onClick={() => setDraft(null)}>Cancel</button></div>
    </form>
      : message.role === 'user' ? <div class="text plain">{message.content}</div>
        : <div class="text" onClick={onCopy} dangerouslySetInnerHTML={{__html: html}} />}
    {message.calls?.map(call => <div class="call" key={call.id}><span>Tool call</span> <strong>{call.name}</strong>
      <pre tabindex={0}>{call.arguments}</pre></div>)}
    {message.streaming && !message.content && !message.reasoning && <div class="waiting" aria-hidden="true">●</div>}
    {message.finish === 'length' && <p class="note">The reply reached the token limit; raise “Longest reply” in the settings.</p>}
    {message.finish === 'stopped' && <p class="note">Stopped.</p>}
    {message.error && <p class="error" role="alert">{message.error}</p>}
    {!message.streaming && draft === null && <div class="actions">
      {actions.count > 1 && <span class="branches">
        <button aria-label="Previous version" disabled={actions.busy || actions.position === 0} onClick={() => actions.onBranch(-1)}>‹</button>
        {actions.position + 1}/{actions.count}
        <button aria-label="Next version" disabled={actions.busy || actions.position + 1 === actions.count} onClick={() => actions.onBranch(1)}>›</button>
      </span>}
      {message.role === 'user' ? <button disabled={actions.busy} onClick={() => setDraft(message.content)}>Edit</button>
        : <button disabled={actions.busy} onClick={actions.onRegenerate}>Regenerate</button>}
      <Meters message={message} />
    </div>}
  </li>;
}
