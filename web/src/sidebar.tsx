// The list of conversations: folders, search, rename, delete, export and import.
import {useState} from 'preact/hooks';
import type {Conversation} from './conversation';

interface Properties {
  conversations: Conversation[]; open: string; onOpen(chosen: Conversation): void; onNew(temporary?: boolean): void;
  onChange(changed: Conversation): void; onDelete(chosen: Conversation): void; onExport(): void; onImport(file: File): void;
}

export function Sidebar(given: Properties) {
  const [search, setSearch] = useState('');
  const [editing, setEditing] = useState<string | null>(null);
  const wanted = search.trim().toLowerCase();
  const found = given.conversations.filter(conversation => !wanted || conversation.title.toLowerCase().includes(wanted) ||
    Object.values(conversation.messages).some(message => message.content.toLowerCase().includes(wanted)))
    .sort((left, right) => right.updated - left.updated);
  const folders = [...new Set(found.map(conversation => conversation.folder))].sort();
  const item = (conversation: Conversation) => <li key={conversation.id}>
    {editing === conversation.id ? <form class="rename" onSubmit={event => {
      event.preventDefault();
      const data = new FormData(event.currentTarget);
      conversation.title = String(data.get('title')).trim() || conversation.title;
      conversation.folder = String(data.get('folder')).trim();
      setEditing(null);
      given.onChange(conversation);
    }}>
      <label>Title<input name="title" defaultValue={conversation.title} /></label>
      <label>Folder<input name="folder" defaultValue={conversation.folder} placeholder="none" /></label>
      <div class="row"><button class="primary">Save</button><button type="button" onClick={() => setEditing(null)}>Cancel</button>
        <button type="button" class="danger" onClick={() => { if (confirm(`Delete “${conversation.title}”?`)) given.onDelete(conversation); }}>Delete</button></div>
    </form> : <>
      <button class="title" aria-current={conversation.id === given.open ? 'true' : undefined} onClick={() => given.onOpen(conversation)}>{conversation.title}</button>
      <button class="more" aria-label={`Rename, move or delete ${conversation.title}`} onClick={() => setEditing(conversation.id)}>⋯</button>
    </>}
  </li>;
  return <nav class="sidebar" aria-label="Conversations">
    <div class="row"><button class="primary new" onClick={() => given.onNew()}>New chat</button>
      <button class="temporary" onClick={() => given.onNew(true)}>Temporary</button></div>
    <input type="search" aria-label="Search conversations" placeholder="Search" value={search} onInput={event => setSearch(event.currentTarget.value)} />
    <div class="list">{folders.map(folder => <section key={folder}>
      {folder && <h2>{folder}</h2>}<ul>{found.filter(conversation => conversation.folder === folder).map(item)}</ul></section>)}
      {!found.length && <p class="none">{wanted ? 'Nothing found.' : 'No conversations yet.'}</p>}</div>
    <div class="row"><button disabled={!given.conversations.length} onClick={given.onExport}>Export</button>
      <label class="button">Import<input class="hidden import" type="file" accept=".json" onChange={event => {
        const file = event.currentTarget.files?.[0];
        if (file) given.onImport(file);
        event.currentTarget.value = '';
      }} /></label></div>
  </nav>;
}
