// Markdown to safe HTML, with highlighted code and math as MathML (which browsers draw without fonts or styles of ours).
import MarkdownIt from 'markdown-it';
import DOMPurify from 'dompurify';
import hljs from 'highlight.js/lib/common';
import katex from 'katex';

const escape = (text: string) => text.replace(/[&<>"]/g, c => ({'&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;'})[c]!);
const markdown = new MarkdownIt({html: false, linkify: false});

function math(text: string, displayMode: boolean): string {
  return katex.renderToString(text, {displayMode, output: 'mathml', throwOnError: false, maxExpand: 200, strict: 'ignore'});
}

const openers: [string, string, boolean][] = [['$$', '$$', true], ['\\[', '\\]', true], ['\\(', '\\)', false], ['$', '$', false]];
markdown.inline.ruler.before('escape', 'math', (state: any, silent: boolean) => {
  for (const [open, close, display] of openers) {
    if (!state.src.startsWith(open, state.pos)) continue;
    const start = state.pos + open.length;
    const end = state.src.indexOf(close, start);
    if (end < 0 || end > state.posMax) continue;
    const text = state.src.slice(start, end);
    // "$5 and $6" is money: a single dollar opens before, and closes after, something that is not a space.
    if (!text.trim() || (open === '$' && (/^\s|\s$|\n/.test(text) || /\d/.test(state.src[end + 1] ?? '')))) continue;
    if (!silent) Object.assign(state.push('math', '', 0), {content: text, meta: display});
    state.pos = end + close.length;
    return true;
  }
  return false;
});
markdown.renderer.rules.math = (tokens: any, index: number) => math(tokens[index].content, tokens[index].meta);
markdown.renderer.rules.fence = (tokens: any, index: number) => {
  const language = tokens[index].info.trim().split(/\s+/)[0];
  const code = tokens[index].content;
  const html = hljs.getLanguage(language) ? hljs.highlight(code, {language}).value : escape(code);
  return `<div class="code"><div class="code-head"><span>${escape(language || 'text')}</span>` +
    `<button type="button" class="copy">Copy</button></div><pre tabindex="0"><code>${html}</code></pre></div>`;
};

export function toHtml(text: string): string {
  return DOMPurify.sanitize(markdown.render(text), {USE_PROFILES: {html: true, mathMl: true}, ADD_TAGS: ['semantics'],
    FORBID_TAGS: ['style', 'form', 'input'], FORBID_ATTR: ['style']});
}
