// What the checks and the screenshots share: a server with the stand-in for the WeChat API behind it, and a
// browser that writes down everything it should not do.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createServer as createProxy, request as httpRequest } from 'node:http';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';

export const ROOT = resolve(import.meta.dirname, '../..');
export const WORK = join(ROOT, 'target/ui');
const installed = createRequire(join(WORK, 'x.js'));
const { chromium } = installed('playwright-core');
/** What finds flaws that people with assistive software would meet. */
export const AXE = () => readFileSync(installed.resolve('axe-core/axe.min.js'), 'utf8');

/** How long anything may take, in milliseconds. What takes longer has failed. */
export const PATIENCE = 15_000;
export const SECRET = 'the-request-secret-of-the-page-test';
export const SHOP = 'the-key-of-the-shop-in-the-page-test';

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** Starts a program; done when a line of its output matches. */
async function start(binary, args, log, ready) {
  const child = spawn(binary, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, RUST_LOG: 'info' } });
  const file = createWriteStream(join(WORK, log), { flags: 'a' });
  const lines = [child.stdout, child.stderr].map((stream) => createInterface({ input: stream }));
  let found;
  const isReady = new Promise((done) => { found = done; });
  for (const stream of lines) {
    stream.on('line', (line) => {
      file.write(`${line}\n`);
      if (ready.test(line)) found();
    });
  }
  const late = new Promise((_, fail) => {
    child.once('exit', (code) => fail(new Error(`${args[0]} ended with ${code}: see ${join(WORK, log)}`)));
    setTimeout(fail, PATIENCE, new Error(`${args[0]} did not start: see ${join(WORK, log)}`)).unref();
  });
  late.catch(() => {});
  await Promise.race([isReady, late]);
  return child;
}

async function stop(child) {
  if (child.exitCode !== null) return;
  const ended = once(child, 'exit');
  child.kill('SIGTERM');
  await ended;
}

/** The stand-in for the WeChat API, and a server that fetches from it: `token` and its `ticket`, and `broken`,
 *  whose account does not let this machine's address in. The shop may see `ticket` alone. */
export class Server {
  static async start(binary) {
    const server = new Server();
    mkdirSync(WORK, { recursive: true });
    const dir = mkdtempSync(join(tmpdir(), 'page-test-'));
    const [http, upstream, ...others] = await Promise.all([0, 0, 0, 0].map(freePort));
    Object.assign(server, { binary, url: `http://127.0.0.1:${http}`, upstream: `http://127.0.0.1:${upstream}` });
    server.sandbox = await start(binary, ['sandbox', '--lifetime', '2h', '--upstream', `127.0.0.1:${upstream}`,
      '--http', `127.0.0.1:${others[0]}`, '--resp', `127.0.0.1:${others[1]}`], 'sandbox.log', /Ctrl-C/);
    await server.control('account?appid=page&secret=s');
    await server.control('account?appid=closed&secret=s&allow=192.0.2.1');
    const source = (appid) => `url: "${server.upstream}/cgi-bin/token", args: {"grant_type": "client_credential", "appid": "${appid}", "secret": "s"}`;
    server.config = join(dir, 'config.ron');
    writeFileSync(server.config, `(
      http: (bind: "127.0.0.1:${http}"), resp: (enabled: false), store: (path: "${dir}/data"),
      request_secret: "${SECRET}", refresh: (cooldown: "0s"),
      clients: {"shop": (keys: ["${SHOP}"], sources: ["ticket"])},
      token_sources: {
        "token": (${source('page')}),
        "ticket": (url: "${server.upstream}/cgi-bin/ticket/getticket", args: {"type": "jsapi", "access_token": "{{token}}"}),
        "broken": (${source('closed')}),
      },
    )`);
    await server.resume();
    return server;
  }

  async resume() {
    this.child = await start(this.binary, ['--config', this.config], 'server.log', /listening|serving|ready/i);
  }

  pause() { return stop(this.child); }

  async stop() {
    await stop(this.child);
    await stop(this.sandbox);
  }

  /** A word to the stand-in. */
  async control(what) {
    const answer = await fetch(`${this.upstream}/sandbox/${what}`, { method: 'POST' });
    if (!answer.ok) throw new Error(`${what}: ${await answer.text()}`);
  }

  async ask(path, key = SECRET, options = {}) {
    const answer = await fetch(`${this.url}${path}`, { ...options, headers: { Authorization: `Bearer ${key}` } });
    return answer.json();
  }

  async source(name) {
    return (await this.ask(`/v1/status?source=${name}`)).sources[0];
  }
}

/** Fonts that Debian has, in the place of whatever the machine has. */
const fontsConf = (families) => `<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig><include>/etc/fonts/fonts.conf</include><match target="pattern"><edit name="family" mode="prepend" binding="strong">
${families.map((family) => `<string>${family}</string>`).join('')}</edit></match></fontconfig>`;

/** A proxy that has the server below a path, and lets nothing else through. */
export async function behindProxy(server, path) {
  const proxy = createProxy((asked, answer) => {
    if (!asked.url.startsWith(`${path}/`)) return answer.writeHead(404).end();
    const onward = httpRequest(server.url + asked.url.slice(path.length), { method: asked.method, headers: asked.headers }, (got) => {
      answer.writeHead(got.statusCode, got.headers);
      got.pipe(answer);
    });
    answer.on('close', () => onward.destroy());
    onward.on('error', () => answer.destroy());
    return asked.pipe(onward);
  }).listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  return { url: `http://127.0.0.1:${proxy.address().port}`, stop: () => proxy.close().closeAllConnections() };
}

export async function browse(families = ['Inter', 'Noto Sans CJK SC']) {
  const fonts = join(WORK, 'fonts.conf');
  writeFileSync(fonts, fontsConf(families));
  return chromium.launch({
    env: { ...process.env, FONTCONFIG_FILE: fonts },
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    // Root has no user namespaces to confine it with, and it sees nothing but this server; a container's /dev/shm
    // is too small for it.
    args: ['--no-sandbox', '--disable-dev-shm-usage', '--force-color-profile=srgb', '--font-render-hinting=none', '--disable-lcd-text'],
  });
}

/** A window of its own: no storage of another, a language, colours, a size. `complaints` is what it should not
 *  have done; `expected` says of which console errors a check knows that they come. */
export async function open(browser, server, options = {}) {
  const context = await browser.newContext({ locale: 'en-US', colorScheme: 'light', viewport: { width: 1180, height: 860 }, ...options });
  if (process.env.UI_FILES) {
    // The headers are the server's, so that what it confines is confined.
    const path = /\/ui(?:\/([^/]+))?$/;
    await context.route((url) => path.test(url.pathname), async (route) => {
      const [, name = 'index.html'] = path.exec(new URL(route.request().url()).pathname);
      const file = join(process.env.UI_FILES, name);
      await route.fulfill({ response: await route.fetch(), body: readFileSync(file, 'utf8') });
    });
  }
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  const complaints = [];
  const requests = [];
  page.expected = [];
  page.complaints = () => complaints.filter((text) => !page.expected.some((known) => known.test(text)));
  page.requests = requests;
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) complaints.push(`console: ${message.text()}`);
  });
  page.on('pageerror', (error) => complaints.push(`exception: ${error.message}`));
  page.on('request', (request) => {
    requests.push(request);
    if (!request.url().startsWith(`${server.url}/`)) complaints.push(`asked elsewhere: ${request.url()}`);
  });
  await page.addInitScript(() => {
    document.addEventListener('securitypolicyviolation', (event) => {
      console.error(`policy violated: ${event.violatedDirective} ${event.blockedURI}`);
    });
  });
  return page;
}
