// System prompt and sampling of one conversation. An empty field leaves the choice to the server.
import {useEffect, useState} from 'preact/hooks';
import type {Settings} from './conversation';

export function SettingsPanel({settings, onChange}: {settings: Settings; onChange(settings: Settings): void}) {
  const [models, setModels] = useState<string[]>([]);
  useEffect(() => {
    fetch('/v1/models').then(response => response.json())
      .then(list => setModels((list.data ?? []).map((model: {id: string}) => model.id)), () => setModels([]));
  }, []);
  const set = (name: keyof Settings) => (event: {currentTarget: {value: string}}) =>
    onChange({...settings, [name]: event.currentTarget.value} as Settings);
  return <section class="settings" aria-label="Settings">
    <label class="wide">System prompt<textarea rows={3} value={settings.system} onInput={set('system')} /></label>
    <label>Thinking<select value={settings.thinking} onChange={set('thinking')}>
      <option value="off">Off</option><option value="high">High</option><option value="max">Max</option></select></label>
    {models.length > 1 && <label>Model<select value={settings.model} onChange={set('model')}>
      <option value="">Default</option>{models.map(model => <option key={model}>{model}</option>)}</select></label>}
    <label>Temperature<input type="number" min="0" max="2" step="0.05" placeholder="default" value={settings.temperature} onInput={set('temperature')} /></label>
    <label>Top-p<input type="number" min="0" max="1" step="0.01" placeholder="default" value={settings.topP} onInput={set('topP')} /></label>
    <label>Longest reply<input type="number" min="1" step="1" placeholder="default" value={settings.maxTokens} onInput={set('maxTokens')} /></label>
  </section>;
}
