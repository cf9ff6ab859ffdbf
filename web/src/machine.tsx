// What the machine is doing, from /metrics, /slots and /props, every two seconds.
import {useEffect, useState} from 'preact/hooks';

type Metrics = Record<string, number>;

/// Prometheus text; series of one name are summed, and each also stands under its name with labels.
export function parseMetrics(text: string): Metrics {
  const values: Metrics = {};
  for (const line of text.split('\n')) {
    const match = /^([A-Za-z_:][\w:]*)(\{.*\})?\s+(\S+)/.exec(line);
    if (!match || !Number.isFinite(Number(match[3]))) continue;
    values[match[1]] = (values[match[1]] ?? 0) + Number(match[3]);
    if (match[2]) values[match[1] + match[2]] = Number(match[3]);
  }
  return values;
}

const bytes = (value: number) => value >= 1e9 ? `${(value / 1e9).toFixed(2)} GB` : `${(value / 1e6).toFixed(1)} MB`;
const percent = (value: number) => `${(100 * value).toFixed(1)} %`;
const whole = (value: number) => Math.round(value).toLocaleString('en');

function read(path: string): Promise<Response | null> { return fetch(path).then(answer => answer.ok ? answer : null, () => null); }

export function Machine() {
  const [metrics, setMetrics] = useState<Metrics | null>(null);
  const [slots, setSlots] = useState<any[] | null>(null);
  const [props, setProps] = useState<any>(null);
  const [rate, setRate] = useState<number | null>(null);
  useEffect(() => {
    let stopped = false, before: {time: number; tokens: number} | null = null;
    let timer = 0;
    const poll = async () => {
      const [metricsAnswer, slotsAnswer, propsAnswer] = await Promise.all([read('/metrics'), read('/slots'), read('/props')]);
      const now = metricsAnswer ? parseMetrics(await metricsAnswer.text()) : null;
      const list = slotsAnswer ? await slotsAnswer.json().catch(() => null) : null;
      const properties = propsAnswer ? await propsAnswer.json().catch(() => null) : null;
      if (stopped) return;
      const tokens = now?.toaster_generated_tokens_total;
      if (tokens !== undefined) {
        const time = performance.now() / 1000;
        if (before && tokens >= before.tokens) setRate((tokens - before.tokens) / (time - before.time));
        before = {time, tokens};
      }
      setMetrics(now); setSlots(Array.isArray(list) ? list : null); setProps(properties);
      timer = window.setTimeout(poll, 2000);
    };
    void poll();
    return () => { stopped = true; clearTimeout(timer); };
  }, []);
  const value = (name: string, show: (value: number) => string = whole) => metrics?.[name] === undefined ? null : show(metrics[name]);
  const experts = metrics?.toaster_experts_used_total;
  const hit = metrics?.toaster_prompt_cache_hit_tokens_total, miss = metrics?.toaster_prompt_cache_miss_tokens_total;
  const tiers = Object.entries(metrics ?? {}).filter(([name]) => name.startsWith('toaster_memory_bytes{'))
    .map(([name, size]) => [/tier="([^"]*)"/.exec(name)?.[1] ?? name, bytes(size)] as const);
  const tile = (name: string, shown: string | null) => <div class="tile" key={name}><dt>{name}</dt>
    <dd class={shown === null ? 'missing' : ''}>{shown ?? 'not reported'}</dd></div>;
  return <section class="machine" tabindex={0} aria-label="Machine">
    {!metrics && <p class="note">The server does not report metrics now.</p>}
    <dl>
      {tile('Tokens per second', rate === null || metrics?.toaster_generated_tokens_total === undefined ? null : rate.toFixed(1))}
      {tile('Share of the limit', value('toaster_limit_share', percent))}
      {tile('Prompt from cache', hit === undefined || miss === undefined || hit + miss === 0 ? null : percent(hit / (hit + miss)))}
      {tile('Waiting requests', value('toaster_requests_waiting'))}
      {tile('Running requests', value('toaster_requests_running'))}
      {tile('Money saved', value('toaster_saved_dollars', saved => `$${saved.toFixed(4)}`))}
    </dl>
    <h2>Memory</h2>
    <dl>{tiers.length ? tiers.map(([name, size]) => tile(name, size)) : tile('Tiers', null)}</dl>
    {experts !== undefined && <><h2>Experts from disk</h2>
      <dl>
        {tile('Found in memory', experts === 0 ? null : percent(1 - (metrics?.toaster_experts_missed_total ?? 0) / experts))}
        {tile('Read', value('toaster_read_bytes_total{tier="disk"}', bytes))}
        {tile('Waited for', value('toaster_expert_wait_seconds_total', seconds => `${seconds.toFixed(1)} s`))}
      </dl></>}
    <h2>Requests</h2>
    {slots?.length ? <div class="scroll" tabindex={0} role="region" aria-label="Requests"><table><thead><tr><th>Slot</th><th>State</th><th>Tokens</th></tr></thead>
      <tbody>{slots.map((slot, index) => <tr key={index}><td>{slot.id ?? index}</td>
        <td>{slot.is_processing === undefined ? 'not reported' : slot.is_processing ? 'working' : 'free'}</td>
        <td>{slot.n_past ?? slot.tokens ?? 'not reported'}</td></tr>)}</tbody></table></div> : <p class="missing">{slots ? 'None.' : 'not reported'}</p>}
    <h2>Model</h2>
    <dl>{tile('Name', props?.model_alias ?? props?.model ?? null)}{tile('Context', props?.n_ctx ? whole(props.n_ctx) : null)}</dl>
  </section>;
}
