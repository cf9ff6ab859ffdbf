// Conversations in the browser's IndexedDB, one record each.
import type {Conversation} from './conversation';

const wait = <T,>(request: IDBRequest<T>) => new Promise<T>((resolve, reject) => {
  request.onsuccess = () => resolve(request.result);
  request.onerror = () => reject(request.error);
});

let opened: Promise<IDBDatabase> | undefined;
function database() {
  return opened ??= (() => {
    const request = indexedDB.open('toaster', 1);
    request.onupgradeneeded = () => request.result.createObjectStore('conversations', {keyPath: 'id'});
    return wait(request);
  })();
}
const records = async (mode: IDBTransactionMode) =>
  (await database()).transaction('conversations', mode).objectStore('conversations');

export async function loadAll(): Promise<Conversation[]> {
  return wait((await records('readonly')).getAll());
}
export async function save(conversation: Conversation) {
  if (!conversation.temporary) await wait((await records('readwrite')).put(conversation));
}
export async function remove(id: string) {
  await wait((await records('readwrite')).delete(id));
}
