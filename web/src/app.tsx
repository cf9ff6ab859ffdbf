// The page: conversations at the side, the open one in the middle, its settings when asked for.
import {useEffect, useRef, useState} from 'preact/hooks';
import {chatRequest, defaultSettings, fromExport, newConversation, newId, newestLeaf, shownPath, siblings, toExport,
  toMarkdown, type Conversation, type Message, type Settings} from './conversation';
import {MessageView} from './message_view';
import {Machine} from './machine';
import {Sidebar} from './sidebar';
import {SettingsPanel} from './settings_panel';
import * as store from './store';
import {streamChat} from './stream';

const kLargestFile = 4 << 20;

function download(name: string, text: string, type: string) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], {type}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

export function App() {
  const [, redraw] = useState(0);
  const all = useRef<Conversation[]>([]);
  const current = useRef<Conversation>(newConversation(defaultSettings));
  const running = useRef<{abort: AbortController; conversation: string} | null>(null);
  const [text, setText] = useState('');
  const [notice, setNotice] = useState('');
  const [status, setStatus] = useState('');
  const [showSettings, setShowSettings] = useState(false);
  const [showSidebar, setShowSidebar] = useState(false);
  const [page, setPage] = useState(location.hash);
  const input = useRef<HTMLTextAreaElement>(null);
  const log = useRef<HTMLElement>(null);
  const follow = useRef(true);
  const update = () => redraw(count => count + 1);

  async function save(conversation: Conversation) {
    if (conversation.temporary) return;
    if (!all.current.includes(conversation)) {
      if (!Object.keys(conversation.messages).length) return;
      all.current.push(conversation);
    }
    if (conversation === current.current) sessionStorage.setItem('open', conversation.id);
    try { await store.save(conversation); } catch (error) {
      setNotice(`This browser does not keep conversations (${error}). Export what you need.`);
    }
  }

  function open(conversation: Conversation) {
    current.current = conversation;
    setShowSidebar(false);
    if (!conversation.temporary) sessionStorage.setItem('open', conversation.id);
    follow.current = true;
    update();
    input.current?.focus();
  }
  const create = (temporary = false) => {
    location.hash = '';
    open(newConversation({...current.current.settings, system: ''}, temporary));
  };

  useEffect(() => {
    store.loadAll().then(conversations => {
      for (const conversation of conversations)
        for (const message of Object.values(conversation.messages))
          if (message.streaming) {
            message.streaming = false;
            message.error = 'The page was closed before this reply ended. What arrived is kept; regenerate to try again.';
          }
      all.current = conversations;
      const last = conversations.find(conversation => conversation.id === sessionStorage.getItem('open'));
      if (last && !Object.keys(current.current.messages).length) current.current = last;
      update();
    }, error => setNotice(`Conversations cannot be kept in this browser (${error}). Export what you need.`));
    const onHash = () => setPage(location.hash);
    addEventListener('hashchange', onHash);
    return () => removeEventListener('hashchange', onHash);
  }, []);

  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.key === 'Escape') {
        if (showSidebar) setShowSidebar(false);
        else if (showSettings) setShowSettings(false);
        else running.current?.abort.abort();
      }
      if (event.ctrlKey && event.shiftKey && event.key.toLowerCase() === 'o') { event.preventDefault(); create(); }
    };
    addEventListener('keydown', onKey);
    return () => removeEventListener('keydown', onKey);
  }, [showSidebar, showSettings]);

  useEffect(() => { if (follow.current && log.current) log.current.scrollTop = log.current.scrollHeight; });

  function add(conversation: Conversation, parent: string | null, role: 'user' | 'assistant', content: string): Message {
    const message: Message = {id: newId(), parent, role, content, created: Date.now()};
    conversation.messages[message.id] = message;
    conversation.leaf = message.id;
    conversation.updated = message.created;
    return message;
  }

  async function reply(conversation: Conversation, parent: string) {
    const body = chatRequest(conversation.settings, (conversation.leaf = parent, shownPath(conversation)));
    const message = add(conversation, parent, 'assistant', '');
    message.streaming = true;
    const abort = new AbortController();
    running.current = {abort, conversation: conversation.id};
    setStatus('Replying');
    follow.current = true;
    update();
    let started = 0, saved = Date.now(), scheduled = false;
    try {
      await streamChat(body, abort.signal, change => {
        started ||= performance.now();
        if (change.reasoning) message.reasoning = (message.reasoning ?? '') + change.reasoning;
        if (change.reasoning) message.reasoningSeconds = (performance.now() - started) / 1000;
        if (change.content) message.content += change.content;
        if (change.finish) message.finish = change.finish;
        if (change.usage) message.usage = change.usage;
        if (change.call) {
          const call = (message.calls ??= [])[change.call.index] ??= {id: '', name: '', arguments: ''};
          call.id ||= change.call.id ?? '';
          call.name += change.call.name ?? '';
          call.arguments += change.call.arguments ?? '';
        }
        message.seconds = (performance.now() - started) / 1000;
        if (Date.now() - saved > 500) { saved = Date.now(); void save(conversation); }
        if (!scheduled) { scheduled = true; setTimeout(() => { scheduled = false; update(); }, 40); }
      }, setNotice);
      setStatus('Reply complete');
    } catch (error) {
      if (abort.signal.aborted) { message.finish = 'stopped'; setStatus('Stopped'); }
      else { message.error = (error as Error).message; setStatus(''); }
      setNotice('');
    }
    message.streaming = false;
    running.current = null;
    await save(conversation);
    update();
  }

  async function send(content: string, parent = current.current.leaf) {
    if (!content.trim() || running.current) return;
    const conversation = current.current;
    if (!Object.keys(conversation.messages).length) conversation.title = content.trim().split('\n')[0].slice(0, 60);
    const message = add(conversation, parent, 'user', content);
    await save(conversation);
    await reply(conversation, message.id);
  }

  async function attach(files: FileList | null | undefined) {
    for (const file of files ?? []) {
      if (file.size > kLargestFile) { setNotice(`${file.name} is larger than 4 MB; send the part that matters.`); continue; }
      const content = await file.text();
      if (content.includes('\0')) { setNotice(`${file.name} is not text; only text files can be sent.`); continue; }
      const fence = '`'.repeat(Math.max(3, ...[...content.matchAll(/`+/g)].map(run => run[0].length + 1)));
      setText(before => `${before}${before ? '\n\n' : ''}${file.name}:\n${fence}\n${content}\n${fence}\n`);
    }
    input.current?.focus();
  }

  async function importFile(file: File) {
    try {
      const conversations = fromExport(await file.text());
      for (const conversation of conversations) await save(conversation);
      if (conversations.length) open(conversations[0]);
      setNotice('');
    } catch (error) { setNotice((error as Error).message); }
  }

  const conversation = current.current;
  const path = shownPath(conversation);
  const busy = running.current !== null;
  const machine = page === '#machine';
  return <div class={`page ${showSidebar ? 'with-sidebar' : ''}`}
    onDragOver={event => event.preventDefault()}
    onDrop={event => { event.preventDefault(); void attach(event.dataTransfer?.files); }}>
    <Sidebar conversations={all.current} open={conversation.id} onOpen={chosen => { location.hash = ''; open(chosen); }}
      onNew={create} onChange={changed => { void save(changed); update(); }}
      onDelete={chosen => {
        if (running.current?.conversation === chosen.id) { setNotice('Stop the reply before deleting its conversation.'); return; }
        all.current = all.current.filter(other => other !== chosen);
        void store.remove(chosen.id);
        if (chosen === conversation) create(); else update();
      }}
      onExport={() => download('toaster-conversations.json', toExport(all.current), 'application/json')}
      onImport={importFile} />
    <div class="shade" onClick={() => setShowSidebar(false)} />
    <main>
      <header>
        <button class="menu" aria-label="Conversations" aria-expanded={showSidebar} onClick={() => setShowSidebar(!showSidebar)}>☰</button>
        <h1>{machine ? 'Machine' : conversation.title}{conversation.temporary && !machine ? <small> temporary</small> : ''}</h1>
        {machine ? <a class="button" href="#">Chat</a> : <>
          <button disabled={!path.length} onClick={() => download('conversation.md', toMarkdown(conversation), 'text/markdown')}>Markdown</button>
          <button aria-expanded={showSettings} onClick={() => setShowSettings(!showSettings)}>Settings</button>
          <a class="button" href="#machine">Machine</a></>}
      </header>
      {machine ? <Machine /> : <>
        {showSettings && <SettingsPanel settings={conversation.settings}
          onChange={(settings: Settings) => { conversation.settings = settings; void save(conversation); update(); }} />}
        <section class="log" ref={log} tabindex={0} aria-label="Messages"
          onScroll={event => { const box = event.currentTarget; follow.current = box.scrollHeight - box.scrollTop - box.clientHeight < 60; }}>
          {!path.length && <p class="empty">{conversation.temporary ? 'This chat is forgotten when you leave it.' : 'What would you like to know?'}</p>}
          <ol>{path.map(message => {
            const versions = siblings(conversation, message);
            const position = versions.findIndex(other => other.id === message.id);
            return <MessageView key={message.id} message={{...message}} actions={{busy, position, count: versions.length,
              onEdit: changed => void send(changed, message.parent),
              onRegenerate: () => { if (!busy) void reply(conversation, message.parent!); },
              onBranch: step => { conversation.leaf = newestLeaf(conversation, versions[position + step].id); follow.current = false; void save(conversation); update(); }}} />;
          })}</ol>
        </section>
        <div class="hidden" role="status">{status}</div>
        {notice && <div class="notice" role="alert"><span>{notice}</span> <button aria-label="Dismiss" onClick={() => setNotice('')}>×</button></div>}
        <form class="composer" onSubmit={event => { event.preventDefault(); if (busy) return; const given = text; setText(''); void send(given); }}>
          <textarea ref={input} aria-label="Message" placeholder="Message Toaster" rows={Math.min(10, Math.max(2, text.split('\n').length))} value={text}
            onInput={event => setText(event.currentTarget.value)}
            onKeyDown={event => { if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) { event.preventDefault(); event.currentTarget.form!.requestSubmit(); } }} />
          <div class="row"><label class="button">Add file<input type="file" multiple class="hidden" onChange={event => { void attach(event.currentTarget.files); event.currentTarget.value = ''; }} /></label>
            <span class="hint">Enter sends, Shift+Enter breaks the line, Esc stops</span>
            {busy ? <button type="button" class="primary stop" onClick={() => running.current?.abort.abort()}>Stop</button>
              : <button class="primary send" disabled={!text.trim()}>Send</button>}</div>
        </form>
      </>}
    </main>
  </div>;
}
