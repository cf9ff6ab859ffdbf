// What a conversation is: a tree of messages, of which one path is shown. Pure functions, no browser.

export interface ToolCall { id: string; name: string; arguments: string }
export interface Usage {
  prompt_tokens: number; completion_tokens: number;
  prompt_cache_hit_tokens?: number; prompt_cache_miss_tokens?: number;
}
export interface Message {
  id: string; parent: string | null; role: 'user' | 'assistant'; content: string; created: number;
  reasoning?: string; reasoningSeconds?: number; seconds?: number; calls?: ToolCall[]; usage?: Usage;
  finish?: string; error?: string; streaming?: boolean;
}
export interface Settings {
  system: string; thinking: 'off' | 'high' | 'max'; temperature: string; topP: string; maxTokens: string; model: string;
}
export interface Conversation {
  id: string; title: string; folder: string; updated: number; temporary?: boolean;
  settings: Settings; messages: Record<string, Message>; leaf: string | null;
}

export const defaultSettings: Settings =
  {system: '', thinking: 'high', temperature: '', topP: '', maxTokens: '', model: ''};

export function newId(): string {
  // crypto.randomUUID is missing where the page is not served over TLS or from localhost.
  return [...crypto.getRandomValues(new Uint8Array(12))].map(byte => byte.toString(16).padStart(2, '0')).join('');
}

export function newConversation(settings: Settings, temporary = false): Conversation {
  return {id: newId(), title: 'New chat', folder: '', updated: Date.now(), temporary, settings: {...settings},
    messages: {}, leaf: null};
}

/// The messages from the first to the leaf.
export function shownPath(conversation: Conversation): Message[] {
  const path: Message[] = [];
  let id = conversation.leaf;
  while (id !== null && conversation.messages[id]) {
    path.unshift(conversation.messages[id]);
    id = conversation.messages[id].parent;
  }
  return path;
}

export function siblings(conversation: Conversation, message: Message): Message[] {
  return Object.values(conversation.messages)
    .filter(other => other.parent === message.parent && other.role === message.role)
    .sort((left, right) => left.created - right.created);
}

/// The newest end of the branch that starts at `id`.
export function newestLeaf(conversation: Conversation, id: string): string {
  for (;;) {
    const children = Object.values(conversation.messages).filter(message => message.parent === id);
    if (!children.length) return id;
    id = children.reduce((left, right) => right.created >= left.created ? right : left).id;
  }
}

/// The body of a chat request that asks for a reply to `path`.
export function chatRequest(settings: Settings, path: Message[]): object {
  const messages: object[] = settings.system ? [{role: 'system', content: settings.system}] : [];
  for (const message of path) {
    if (message.role === 'user') { messages.push({role: 'user', content: message.content}); continue; }
    messages.push({role: 'assistant', content: message.content,
      // Turns that called tools must come back with their reasoning.
      ...(message.calls?.length ? {reasoning_content: message.reasoning ?? '', tool_calls: message.calls.map(call =>
        ({id: call.id, type: 'function', function: {name: call.name, arguments: call.arguments}}))} : {})});
  }
  const number = (text: string) => text.trim() === '' ? undefined : Number(text);
  return {model: settings.model || undefined, messages, stream: true, stream_options: {include_usage: true},
    thinking: {type: settings.thinking === 'off' ? 'disabled' : 'enabled'},
    reasoning_effort: settings.thinking === 'off' ? undefined : settings.thinking,
    temperature: number(settings.temperature), top_p: number(settings.topP), max_tokens: number(settings.maxTokens)};
}

export function toMarkdown(conversation: Conversation): string {
  const parts = [`# ${conversation.title}`];
  if (conversation.settings.system) parts.push(`## System\n\n${conversation.settings.system}`);
  for (const message of shownPath(conversation))
    parts.push(`## ${message.role === 'user' ? 'You' : 'Toaster'}\n\n${message.content}`);
  return parts.join('\n\n') + '\n';
}

/// Reads what the JSON export wrote. Throws an Error that says what is wrong.
export function fromExport(text: string): Conversation[] {
  let data: any;
  try { data = JSON.parse(text); } catch { throw new Error('This file is not JSON; choose a file that Export wrote.'); }
  if (data?.format !== 'toaster-conversations-1' || !Array.isArray(data.conversations))
    throw new Error('This file holds no conversations; choose a file that Export wrote.');
  return data.conversations.map((given: any) => {
    const messages: Record<string, Message> = {};
    for (const [id, message] of Object.entries<any>(given?.messages ?? {})) {
      if (typeof message?.content !== 'string' || !['user', 'assistant'].includes(message.role))
        throw new Error('A message in this file is damaged; export it again.');
      messages[id] = {...message, id, parent: message.parent ?? null, created: Number(message.created) || 0, streaming: false};
    }
    for (const start of Object.keys(messages)) {
      const seen = new Set<string>();
      for (let id: string | null = start; id !== null; id = messages[id].parent) {
        if (!messages[id] || seen.has(id)) throw new Error('The messages in this file do not form a tree; export it again.');
        seen.add(id);
      }
    }
    return {id: newId(), title: String(given.title ?? 'Imported chat'), folder: String(given.folder ?? ''),
      updated: Number(given.updated) || Date.now(), settings: {...defaultSettings, ...given.settings}, messages,
      leaf: messages[given.leaf] ? given.leaf : null};
  });
}
export const toExport = (conversations: Conversation[]) =>
  JSON.stringify({format: 'toaster-conversations-1', conversations}, null, 1);
