// Pictures of `status` and `doctor` as a terminal shows them, into docs/screenshots/: the program on a
// pseudo-terminal, its colours as HTML, photographed like the page. `status` shows the sources of the page's
// pictures; `doctor` looks at a real server, one of whose accounts does not let this machine in.
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { ROOT, SECRET, Server, WORK, browse } from './harness.mjs';
import { TROUBLED, status } from './screenshots.mjs';

/** By the number of an escape sequence. */
const COLOURS = { 2: '#8b949e', 31: '#f47067', 32: '#57ab5a', 33: '#daaa3f', 36: '#76e3ea', 90: '#8b949e' };

/** What the program prints on a terminal. It exits with 1 where not all is well. */
async function printed(binary, args, language) {
  const command = [binary, ...args].map((word) => `'${word}'`).join(' ');
  const env = { PATH: process.env.PATH, TERM: 'xterm-256color', LANG: language, WECHAT_TOKEN_SERVER_KEY: SECRET };
  const run = promisify(execFile)('script', ['-qec', `stty cols 90; ${command}; true`, '/dev/null'], { env, cwd: WORK, timeout: 60_000 });
  run.child.stdin.end();
  return (await run).stdout.replaceAll('\r', '');
}

/** Text with escape sequences as HTML. */
function html(text) {
  const escaped = text.replace(/[&<>]/g, (one) => `&#${one.charCodeAt(0)};`);
  let open = '';
  const coloured = escaped.replace(/\x1b\[([\d;]*)m/g, (_, codes) => {
    const close = open;
    const styles = codes.split(';').flatMap((code) => (code === '1' ? ['font-weight:600'] : COLOURS[code] ? [`color:${COLOURS[code]}`] : []));
    open = styles.length > 0 ? '</span>' : '';
    return close + (open && `<span style="${styles.join(';')}">`);
  });
  return coloured + open;
}

async function photograph(browser, path, command, text) {
  const page = await browser.newPage({ viewport: { width: 1000, height: 400 }, deviceScaleFactor: 1.5 });
  await page.setContent(`<style>
    body { margin: 0; background: #1c2128 }
    pre { margin: 0; display: inline-block; padding: 18px 22px; color: #cdd9e5; font: 14px/1.5 'Noto Sans Mono CJK SC', monospace }
  </style><pre>${html(`\x1b[90m$\x1b[0m ${command}\n\n${text.trim()}`)}</pre>`);
  await page.locator('pre').screenshot({ path });
  await page.close();
}

const binary = process.argv[2];
const folder = process.argv[3] ?? join(ROOT, 'docs/screenshots');
const sample = createServer((_, answer) => {
  answer.setHeader('content-type', 'application/json');
  answer.end(JSON.stringify(status(TROUBLED)));
}).listen(0, '127.0.0.1');
await once(sample, 'listening');
const server = await Server.start(binary);
// In one font, where a Chinese character is as wide as two Latin ones, as on a terminal.
const browser = await browse(['Noto Sans Mono CJK SC']);
try {
  for (const [name, language] of [['en', 'C.UTF-8'], ['zh', 'zh_CN.UTF-8']]) {
    const table = await printed(binary, ['status', '--url', `http://127.0.0.1:${sample.address().port}`], language);
    await photograph(browser, join(folder, `status-${name}.png`), 'wechat-token-server status', table);
    const findings = await printed(binary, ['--config', server.config, 'doctor'], language);
    await photograph(browser, join(folder, `doctor-${name}.png`), 'wechat-token-server doctor', findings.replaceAll(server.config, 'config.ron'));
  }
} finally {
  await browser.close();
  await server.stop();
  sample.close();
}
