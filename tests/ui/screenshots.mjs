// Pictures of the page for the documentation, into docs/screenshots/: the page of the binary, with made-up
// sources and a clock that stands still, so that they come out alike each time.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT, Server, browse, open } from './harness.mjs';

export const NOW = Date.parse('2026-03-18T14:32:10+08:00') / 1000;
const MINUTE = 60, HOUR = 3600;

/** Renewals of a day, each so long after the one before, the last one at `last`. */
function renewals(every, last) {
  const history = [];
  for (let at = last; at > NOW - 24 * HOUR; at -= every) history.unshift({ first: at, last: at, count: 1, failure: null, code: null });
  return history;
}

const failures = (first, last, count, failure, code = null) => ({ first, last, count, failure, code });
const reader = (client, protocol, reads, recent) => ({ client, protocol, reads, recent_reads: recent, last_read_at: NOW - 4 });

export function source(name, { age, life = 2 * HOUR, lead = 10 * MINUTE, generation = 1_773_800_000, calls = null, ...rest }) {
  const fetched = NOW - age;
  return {
    name, state: 'live', generation, fetched_at: fetched, first_seen_at: fetched, expires_at: fetched + life,
    life_left: life - age, expires_in: life - age, on_disk: true, next_renewal_at: fetched + life - lead,
    refreshes: { succeeded: 26, failed: 0 }, last_error: null, calls_today: calls,
    history: renewals(life - lead, fetched), readers: [], ...rest,
  };
}

export const WELL = [
  source('access_token', {
    age: 34 * MINUTE + 20, generation: 1_773_813_470, calls: { made: 9, limit: 2000 },
    readers: [reader('shop', 'http', 18_402, 31), reader('crm', 'resp', 9_120, 12), reader('push', 'resp', 2_044, 3)],
  }),
  source('ticket', {
    age: 51 * MINUTE, generation: 1_773_812_470, calls: { made: 9, limit: null }, readers: [reader('shop', 'http', 7_311, 9)],
  }),
  source('corp_token', {
    age: 96 * MINUTE, generation: 1_773_809_770, readers: [reader('default', 'http', 211, 0)],
    history: [...renewals(110 * MINUTE, NOW - 11 * HOUR), failures(NOW - 9.2 * HOUR, NOW - 8.6 * HOUR, 6, 'transient'), ...renewals(110 * MINUTE, NOW - 96 * MINUTE).filter((one) => one.first > NOW - 8.6 * HOUR)],
    last_error: { at: NOW - Math.round(8.6 * HOUR), class: 'transient', code: null, message: 'the upstream did not answer in time', message_zh: '上游没有及时应答', remedy: { en: 'it is tried again by itself', zh: '会自动重试' }, over: true },
  }),
  source('partner_token', { age: 3 * HOUR, life: 24 * HOUR, lead: HOUR, generation: 1_773_804_730, readers: [reader('crm', 'resp', 880, 1)] }),
];

export const TROUBLED = WELL.map((one) => one.name !== 'corp_token' ? one : {
  ...one, state: 'failing', next_renewal_at: NOW + 48, last_error: {
    at: NOW - 72, class: 'misconfigured', code: '60020', message: 'the upstream answered errcode 60020', message_zh: '上游返回 errcode 60020', over: false,
    remedy: {
      en: "add 203.0.113.7 to the app's trusted IPs in the WeCom admin console",
      zh: '在企业微信管理后台将 203.0.113.7 加入应用的企业可信 IP',
    },
  },
  history: [...one.history.filter((past) => past.first < NOW - 2 * HOUR || !past.failure), failures(NOW - 11 * MINUTE, NOW - 72, 9, 'misconfigured', 60020)],
  expires_at: NOW + 23 * MINUTE + 30, fetched_at: NOW + 23 * MINUTE + 30 - 2 * HOUR,
});

export function status(sources) {
  const states = { live: 0, failing: 0, expired: 0, absent: 0 };
  for (const one of sources) states[one.state] += 1;
  return { version: '0.1.0', now: NOW, started_at: NOW - 9 * 24 * HOUR, uptime: 9 * 24 * HOUR, states, sources };
}

/** The page with these sources, signed in. */
export async function show(browser, server, sources, options) {
  const page = await open(browser, server, { timezoneId: 'Asia/Shanghai', reducedMotion: 'reduce', ...options });
  await page.clock.install({ time: NOW * 1000 });
  await page.clock.pauseAt(NOW * 1000);
  await page.route('**/v1/status*', (route) => route.fulfill({ json: status(sources) }));
  await page.route('**/v1/events', (route) => route.fulfill({ contentType: 'text/event-stream', body: ':listening\n\n' }));
  // The stream above has an end, unlike a real one; it is held where it is.
  await page.addInitScript(() => {
    sessionStorage.setItem('client-key', 'k');
    const read = ReadableStreamDefaultReader.prototype.read;
    ReadableStreamDefaultReader.prototype.read = async function hold() {
      const part = await read.call(this);
      return part.done ? new Promise(() => {}) : part;
    };
  });
  await page.goto(`${server.url}/ui`);
  await page.locator('#connection[data-state=live]').waitFor();
  await page.locator('#facts:not(:empty)').waitFor();
  return page;
}

const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };
const DESK = { viewport: { width: 1120, height: 800 } };

const PICTURES = [
  ['en-light', WELL, { ...DESK }],
  ['zh-light', WELL, { ...DESK, locale: 'zh-CN' }],
  ['en-dark-failing', TROUBLED, { ...DESK, colorScheme: 'dark' }],
  ['zh-light-failing', TROUBLED, { ...DESK, locale: 'zh-CN' }],
  ['zh-dark-phone', TROUBLED, { ...PHONE, locale: 'zh-CN', colorScheme: 'dark' }],
  ['en-light-phone', WELL, { ...PHONE }],
];

export async function take(browser, server, folder, before = async () => {}) {
  mkdirSync(folder, { recursive: true });
  for (const [name, sources, options] of PICTURES) {
    const page = await show(browser, server, sources, options, before);
    await page.screenshot({ path: join(folder, `${name}.png`), animations: 'disabled' });
    await page.context().close();
  }
}

if (process.argv[1] === import.meta.filename) {
  const server = await Server.start(process.argv[2]);
  const browser = await browse();
  try {
    await take(browser, server, process.argv[3] ?? join(ROOT, 'docs/screenshots'));
  } finally {
    await browser.close();
    await server.stop();
  }
}
