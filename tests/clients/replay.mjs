// Starts the server with recorded replies, which REPLAY_SERVER names.
import {spawn} from 'node:child_process';
import {createInterface} from 'node:readline';

export async function startReplayServer() {
  const server = spawn(process.env.REPLAY_SERVER, {stdio: ['pipe', 'pipe', 'ignore']});
  const port = await new Promise(resolve => createInterface(server.stdout).once('line', resolve));
  return {base: `http://127.0.0.1:${port}`, pid: server.pid, stop: () => server.stdin.end()};
}
