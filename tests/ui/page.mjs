// The page at /ui in a real browser: each check has a window of its own, and fails also by an error in the
// console, a request to elsewhere or a violated policy.
import assert from 'node:assert/strict';
import { AXE, PATIENCE, SECRET, SHOP, Server, behindProxy, browse, open } from './harness.mjs';
import { NOW, WELL, show, source } from './screenshots.mjs';

const checks = [];
const check = (name, run, options) => checks.push({ name, run, options });

const live = (page) => page.locator('#connection[data-state=live]').waitFor();
const row = (page, name) => page.locator('.row', { has: page.locator(`h2:text-is("${name}")`) });
const button = (page, name) => row(page, name).locator('> button');
const says = (locator, text) => locator.filter({ hasText: text }).first().waitFor();
const kept = (page) => page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]));

async function until(what, condition) {
  const end = Date.now() + PATIENCE;
  while (!await condition()) {
    if (Date.now() > end) throw new Error(`never: ${what}`);
    await new Promise((wait) => setTimeout(wait, 50));
  }
}

async function signIn(page, server, key = SECRET) {
  await page.goto(`${server.url}/ui`);
  await page.locator('#key').fill(key);
  await page.keyboard.press('Enter');
  await live(page);
}

/** What the browser says of requests that are refused on purpose. */
const refused = (status) => new RegExp(`status of ${status}`);

check('a wrong key is told so and not kept', async ({ page, server }) => {
  page.expected.push(refused(401));
  await page.goto(`${server.url}/ui`);
  await page.locator('#enter').click();
  await says(page.locator('#key-error'), 'Enter a key');
  for (const key of ['wrong', '密钥']) {
    await page.locator('#key').fill(key);
    await page.keyboard.press('Enter');
    await says(page.locator('#key-error'), 'not known');
    assert(await page.locator('#key').evaluate((field) => field === document.activeElement));
    assert.equal(await page.locator('#key').getAttribute('aria-invalid'), 'true');
  }
  assert(await page.locator('#board').isHidden());
  assert.equal(await kept(page), '[{},{},""]');
});

check('a key signs in, stays in the tab, and is gone after signing out', async ({ page, server }) => {
  await signIn(page, server);
  await row(page, 'token').locator('.state', { hasText: 'Live' }).waitFor();
  assert.equal(await page.locator('#key').inputValue(), '');
  assert.equal(await kept(page), JSON.stringify([{}, { 'client-key': SECRET }, '']));
  await page.reload();
  await live(page);
  assert.equal(await page.locator('.row').count(), 3);
  const other = await page.context().newPage();
  await other.goto(`${server.url}/ui`);
  await other.locator('#sign-in').waitFor();
  await page.locator('#sign-out').click();
  await page.locator('#sign-in').waitFor();
  assert.equal(await kept(page), '[{},{},""]');
  assert.equal(await page.locator('.row').count(), 0);
  for (const request of page.requests) {
    assert(!request.url().includes(SECRET));
    if (request.url().includes('/v1/')) assert.equal((await request.allHeaders()).authorization, `Bearer ${SECRET}`);
    assert(!/v1\/tokens/.test(request.url()), `no token is asked for: ${request.url()}`);
  }
});

check('a key that is not accepted any more leads back to signing in', async ({ page, server }) => {
  page.expected.push(refused(401));
  await signIn(page, server);
  await page.route('**/v1/status*', (route) => route.fulfill({ status: 401, json: { error: { code: 'unauthorized', message: 'no' } } }));
  await server.ask('/v1/tokens/token/refresh', SECRET, { method: 'POST' });
  await says(page.locator('#key-error'), 'not accepted any more');
  assert.equal(await kept(page), '[{},{},""]');
});

check('a rotation arrives by itself', async ({ page, server }) => {
  await signIn(page, server);
  const before = await server.source('token');
  await says(row(page, 'token').locator('.facts'), `${before.generation}`);
  await server.ask('/v1/tokens/token/refresh', SECRET, { method: 'POST' });
  const after = await server.source('token');
  assert(after.generation > before.generation);
  await says(row(page, 'token').locator('.facts'), `${after.generation}`);
  await page.locator('.row.renewed').first().waitFor();
  const marks = row(page, 'token').locator('.strip .success');
  assert.equal(await marks.count(), after.history.filter((past) => past.failure === null).length);
});

check('the life that is left moves', async ({ page, server }) => {
  await signIn(page, server);
  const level = row(page, 'token').locator('.level');
  const share = () => level.evaluate((bar) => Number(/scaleX\((.*)\)/.exec(bar.style.transform)[1]));
  const first = await share();
  assert(first > 0.9 && first <= 1, `${first}`);
  await until('a shorter bar', async () => await share() < first);
  const { expires_at: end } = await server.source('token');
  await says(row(page, 'token').locator('.left'), `${Math.floor((end - Date.now() / 1000) / 3600)} h`);
});

check('a refresh asks first, says what it costs, and shows no token', async ({ page, server }) => {
  await signIn(page, server);
  const asked = () => page.requests.filter((request) => request.method() === 'POST');
  const before = await server.source('token');
  await button(page, 'token').click();
  const words = await page.locator('#confirm').innerText();
  for (const part of ['for token?', "today's quota", `${before.calls_today.made} of 2,000`, 'dies within minutes']) {
    assert(words.includes(part), `${part}: ${words}`);
  }
  await page.locator('#confirm button', { hasText: 'Cancel' }).click();
  assert(await page.locator('#confirm').isHidden());
  assert.deepEqual(asked(), []);
  await button(page, 'token').click();
  await page.locator('#yes').click();
  await says(page.locator('.note'), 'token has a new token');
  assert.equal(asked().length, 1);
  assert(asked()[0].url().endsWith('/v1/tokens/token/refresh'));
  assert.equal(asked()[0].postData(), '{"force":true}');
  const after = await server.source('token');
  await says(row(page, 'token').locator('.facts'), `${after.generation}`);
  const { value } = await server.ask('/v1/tokens/token');
  assert(value.length > 30 && !(await page.content()).includes(value) && !(await kept(page)).includes(value));
});

check('what fails is on top, with what to do, in the language that is on', async ({ page, server }) => {
  page.expected.push(refused(502));
  await signIn(page, server);
  await says(page.locator('#headline'), '1 source has no token');
  await row(page, 'broken').locator('.strip .failed').waitFor();
  assert.equal(await page.locator('.row h2').first().innerText(), 'broken');
  await says(row(page, 'broken').locator('.state'), 'No token');
  await says(row(page, 'broken').locator('.trouble'), 'add 127.0.0.1 to the IP allow list');
  await button(page, 'broken').click();
  await page.locator('#yes').click();
  await says(page.locator('.note.bad'), 'no new token');
  await page.locator('#language').click();
  await says(row(page, 'broken').locator('.trouble'), '加入公众平台');
  await says(page.locator('#headline'), '1 个令牌源没有可用令牌');
});

check('a source that begins to fail, and recovers, is seen at once', async ({ page, server }) => {
  await signIn(page, server);
  const force = () => server.ask('/v1/tokens/token/refresh', SECRET, { method: 'POST' });
  await server.control('account?appid=page&refused_with=40125');
  try {
    await force();
  } finally {
    await server.control('account?appid=page&refused_with=none');
  }
  await row(page, 'token').locator('.state', { hasText: 'Failing' }).waitFor();
  await says(page.locator('#spoken'), 'token is failing');
  await says(page.locator('#headline'), '1 source has no token, another is failing');
  await page.locator('.chip[data-state=failing]').click();
  assert.deepEqual(await page.locator('.row:visible h2').allInnerTexts(), ['token']);
  await until('it recovers', async () => (await force()).value);
  await row(page, 'token').locator('.state', { hasText: 'Live' }).waitFor();
  await says(row(page, 'token').locator('.facts'), 'over since');
});

check('each language has every word, follows the browser, and is remembered', async ({ page, server }) => {
  await signIn(page, server);
  assert.equal(await page.locator('html').getAttribute('lang'), 'zh-CN');
  await says(row(page, 'token').locator('.state'), '有效');
  assert(!/[A-Za-z]{3,} [a-z]{2,}/.test(await page.locator('#summary, #facts').first().innerText()));
  const kinds = await page.evaluate(async () => {
    const { words, setLanguage } = await import('/ui/text.js');
    const shape = (value) => typeof value === 'object' && !Array.isArray(value)
      ? Object.entries(value).map(([name, inner]) => [name, shape(inner)]).sort()
      : Array.isArray(value) ? 'list' : typeof value;
    const of = (lang) => { setLanguage(lang); return JSON.stringify(shape(words())); };
    return [of('zh-CN'), of('en')];
  });
  assert.equal(kinds[0], kinds[1]);
  await page.reload();
  await live(page);
  await page.locator('#language').click();
  await says(row(page, 'token').locator('.state'), 'Live');
  await page.reload();
  await live(page);
  assert.equal(await page.locator('html').getAttribute('lang'), 'en');
  await page.locator('#sign-out').click();
  for (const turn of [0, 1]) {
    const texts = await page.locator('[data-text]').evaluateAll((all) => all.map((one) => one.textContent));
    assert(texts.every((text) => text && text !== 'undefined'), `${turn}: ${texts}`);
    await page.locator('#language').click();
  }
}, { locale: 'zh-CN' });

/** The contrast of two colours: WCAG 2.2, "contrast ratio". */
function contrast(...colours) {
  const light = (colour) => colour.map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const [dark, bright] = colours.map(light).sort((a, b) => a - b);
  return (bright + 0.05) / (dark + 0.05);
}

check('it is light or dark as the system is or as one likes, and can be read in both', async ({ page, server }) => {
  await signIn(page, server);
  const ground = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  const colours = () => page.evaluate(() => {
    const probe = document.body.appendChild(document.createElement('i'));
    const names = ['ground', 'surface', 'ink', 'muted', 'accent', 'on-accent', 'accent-soft', 'warn', 'warn-soft', 'bad', 'bad-soft', 'off', 'off-soft'];
    const found = names.map((name) => {
      probe.style.color = `var(--${name})`;
      return [name, getComputedStyle(probe).color.match(/\d+/g).map(Number)];
    });
    probe.remove();
    return Object.fromEntries(found);
  });
  const seen = [];
  for (const scheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme: scheme });
    await page.locator(`html[data-theme=${scheme}]`).waitFor();
    seen.push(await ground());
    const all = await colours();
    for (const pair of ['ink ground', 'ink surface', 'muted ground', 'muted surface', 'accent surface', 'on-accent accent',
      'warn surface', 'warn warn-soft', 'bad surface', 'bad bad-soft', 'muted bad-soft', 'muted warn-soft', 'ink off-soft', 'surface bad']) {
      const ratio = contrast(...pair.split(' ').map((name) => all[name]));
      assert(ratio >= 4.5, `${scheme}: ${pair} has ${ratio.toFixed(2)}`);
    }
  }
  assert.notEqual(seen[0], seen[1]);
  await page.locator('#theme').click(); // system -> light
  assert.equal(await ground(), seen[0]);
  await page.reload();
  assert.equal(await ground(), seen[0]);
  await page.locator('#theme').click(); // -> dark
  assert.equal(await ground(), seen[1]);
  await page.locator('#theme').click(); // -> system, which is dark
  assert.equal(await page.locator('html').getAttribute('data-choice'), 'system');
});

for (const width of [390, 320]) {
  check(`on a phone of ${width} px nothing sticks out`, async ({ page, server }) => {
    const fits = async (where) => {
      const [inner, outer] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
      assert(inner <= outer && outer === width, `${where}: ${inner} of ${outer}`);
    };
    await page.goto(`${server.url}/ui`);
    await page.locator('#key').waitFor();
    await fits('signing in');
    await signIn(page, server);
    for (const lang of ['en', 'zh-CN']) {
      assert.equal(await page.locator('html').getAttribute('lang'), lang);
      await fits(`board, ${lang}`);
      await button(page, 'token').click();
      const box = await page.locator('#confirm').boundingBox();
      assert(box.x >= 0 && box.x + box.width <= width);
      await page.keyboard.press('Escape');
      for (const one of await page.locator('.row:visible > *:visible, .top > *:visible').all()) {
        const { x, width: wide } = await one.boundingBox();
        assert(x >= 0 && x + wide <= width, await one.innerText());
      }
      await page.locator('#language').click();
    }
  }, { viewport: { width, height: 844 }, isMobile: true, hasTouch: true });
}

check('everything can be done with the keyboard', async ({ page, server }) => {
  await page.goto(`${server.url}/ui`);
  await page.locator('#key').waitFor();
  await page.keyboard.type(SECRET); // the field has the focus
  await page.keyboard.press('Enter');
  await live(page);
  await page.reload(); // so that the focus is at the beginning
  await live(page);
  const focused = () => page.evaluate(() => {
    const at = document.activeElement;
    const style = getComputedStyle(at);
    const rect = at.getBoundingClientRect();
    return {
      name: at.id || at.getAttribute('aria-label') || at.innerText.trim(),
      isVisible: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2 && rect.width > 1 && rect.height > 1,
    };
  });
  const visited = [];
  for (const expected of ['Skip to the sources', 'language', 'theme', 'sign-out', /^All/, /^Live/, /^No token/, 'filter', 'Refresh broken', 'Refresh token', 'Refresh ticket']) {
    await page.keyboard.press('Tab');
    const { name, isVisible } = await focused();
    visited.push(name);
    assert(expected instanceof RegExp ? expected.test(name) : name === expected, `${expected}: ${visited}`);
    assert(isVisible, `the focus is not seen at ${name}`);
  }
  await page.keyboard.press('Shift+Tab');
  await page.keyboard.press('Enter');
  await page.locator('#confirm[open]').waitFor();
  assert.equal((await focused()).name, 'Cancel');
  await page.keyboard.press('Escape');
  assert.equal((await focused()).name, 'Refresh token');
  await page.keyboard.press('Enter');
  await page.keyboard.press('Tab');
  assert.equal((await focused()).name, 'yes');
  await page.keyboard.press('Enter');
  await says(page.locator('.note'), 'token has a new token');
  // The rows were drawn anew meanwhile, and the focus is where it was.
  assert.equal((await focused()).name, 'Refresh token');
});

for (const [lang, colorScheme] of [['en-US', 'light'], ['zh-CN', 'dark']]) {
  check(`assistive software finds its way, ${lang}`, async ({ page, server }) => {
    const flaws = async () => {
      await page.evaluate(AXE());
      return page.evaluate(async () => (await globalThis.axe.run()).violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html)}`));
    };
    await page.goto(`${server.url}/ui`);
    await page.locator('#key').waitFor();
    assert.deepEqual(await flaws(), []);
    await signIn(page, server);
    assert.deepEqual(await flaws(), []);
    await button(page, 'token').click();
    assert.deepEqual(await flaws(), []);
  }, { locale: lang, colorScheme });
}

check('it works below a path, behind a proxy', async ({ browser, server }) => {
  const proxy = await behindProxy(server, '/tokens');
  try {
    const page = await open(browser, proxy);
    await page.goto(`${proxy.url}/tokens/ui/`);
    assert.equal(page.url(), `${proxy.url}/tokens/ui`);
    await page.locator('#key').fill(SECRET);
    await page.keyboard.press('Enter');
    await live(page);
    await row(page, 'token').locator('.state', { hasText: 'Live' }).waitFor();
    return page;
  } finally {
    proxy.stop();
  }
});

check('a page that nobody looks at gives its stream back', async ({ page, server }) => {
  await page.clock.install();
  await page.addInitScript(() => {
    Object.defineProperty(document, 'hidden', { get: () => globalThis.isHidden === true });
  });
  await signIn(page, server);
  const look = (isHidden) => page.evaluate((to) => {
    globalThis.isHidden = to;
    document.dispatchEvent(new Event('visibilitychange'));
  }, isHidden);
  await look(true);
  await page.clock.fastForward(61_000);
  await page.locator('#connection[data-state=paused]').waitFor();
  await look(false);
  await live(page);
});

check('a client with few rights sees its sources and nothing else', async ({ page, server }) => {
  await signIn(page, server, SHOP);
  await says(page.locator('#headline'), 'All well');
  assert.deepEqual(await page.locator('.row h2').allInnerTexts(), ['ticket']);
  assert(!/Read by|broken/.test(await page.locator('#board').innerText()));
  assert(await page.locator('#filter').isHidden(), 'there is nothing to filter');
  await button(page, 'ticket').click();
  await says(page.locator('#costs'), 'Your key cannot force');
  await page.locator('#yes').click();
  await page.locator('.note').waitFor();
  const [post] = page.requests.filter((request) => request.method() === 'POST');
  assert.equal(post.postData(), null);
});

check('who reads a source is shown to the request_secret, by the names of the log', async ({ page, server }) => {
  await server.ask('/v1/tokens/ticket', SHOP);
  await server.ask('/v1/tokens/token', SECRET);
  await signIn(page, server);
  await says(row(page, 'ticket').locator('.reader'), 'shop · HTTP');
  const reader = row(page, 'token').locator('.reader');
  await says(reader, 'default · HTTP');
  assert.match(await reader.getAttribute('title'), /^Whoever shows the request_secret/);
});

check('it connects again after a restart, and has missed nothing', async ({ page, server }) => {
  page.expected.push(/ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED|ERR_CONNECTION_RESET/);
  await signIn(page, server);
  await server.pause();
  await page.locator('#connection[data-state=lost]').waitFor();
  await says(page.locator('#lost'), 'Disconnected. What you see is from before.');
  await says(page.locator('#spoken'), 'Disconnected');
  assert(Number(await page.locator('.sources').evaluate((list) => getComputedStyle(list).opacity)) < 1);
  await server.resume();
  await server.ask('/v1/tokens/token/refresh', SECRET, { method: 'POST' });
  const { generation } = await server.source('token');
  await page.locator('#lost button').click({ timeout: 1000 }).catch(() => {}); // unless it was faster
  await live(page);
  assert(await page.locator('#lost').isHidden());
  await says(row(page, 'token').locator('.facts'), `${generation}`);
  await says(page.locator('#spoken'), 'Connected again');
});

check('a thousand sources are drawn as they come into sight', async ({ browser, server }) => {
  const many = Array.from({ length: 1000 }, (_, at) => ({ ...WELL[at % 4], name: `source_${String(at).padStart(4, '0')}` }));
  many[700] = { ...source('source_0700', { age: 60 }), state: 'expired' };
  const page = await show(browser, server, many);
  const drawn = () => page.locator('.row .bar').count();
  assert.equal(await page.locator('.row').count(), 1000);
  assert.equal(await page.locator('.row h2').first().innerText(), 'source_0700');
  assert(await drawn() < 60, `${await drawn()} are drawn`);
  await page.locator('.row').last().scrollIntoViewIfNeeded();
  await page.locator('.row h2:text-is("source_0999")').waitFor();
  assert(await drawn() < 120, `${await drawn()} are drawn`);
  await page.locator('#filter').fill('E_099');
  await until('ten are left', async () => await page.locator('.row:visible').count() === 10);
  await page.locator('#filter').fill('no such name');
  await says(page.locator('#nothing'), 'No source matches');
  await page.locator('#show-all').click();
  await until('all are back', async () => await page.locator('.row:not([hidden])').count() === 1000);
  return page;
});

check('no source at all is told so', async ({ browser, server }) => {
  const page = await show(browser, server, []);
  await says(page.locator('#headline'), 'No sources');
  return page;
});

check('what a server says is text, whatever it says', async ({ browser, server }) => {
  const markup = '<img src=x onerror=alert(1)><b>x</b>';
  const trouble = { at: NOW - 5, class: markup, code: markup, message: markup, message_zh: markup, remedy: { en: markup, zh: markup }, over: false };
  const page = await show(browser, server, [{ ...WELL[0], name: markup, state: 'failing', last_error: trouble, readers: [{ ...WELL[0].readers[0], client: markup }] }]);
  assert.equal(await page.locator('.row h2').innerText(), markup);
  assert.equal(await page.locator('.row img, .row h2 b').count(), 0);
  return page;
});

check('who wants no motion gets none', async ({ page, server }) => {
  await signIn(page, server);
  const moves = () => row(page, 'token').locator('.level').evaluate((bar) => getComputedStyle(bar).transitionDuration);
  assert.equal(await moves(), '1s');
  await page.emulateMedia({ reducedMotion: 'reduce' });
  assert.equal(await moves(), '0s');
});

check('the watch notices what must not be', async ({ page, server }) => {
  await page.goto(`${server.url}/ui`);
  await page.locator('#key').waitFor();
  await page.evaluate(() => {
    const script = document.createElement('script');
    script.setAttribute('src', 'data:text/javascript,1');
    document.body.append(script);
  }).catch(() => {});
  await page.evaluate(() => fetch('http://127.0.0.1:9/').catch(() => {}));
  await page.evaluate(() => { document.body.innerHTML = '<p>'; }).catch(() => {});
  await page.evaluate(() => { document.body.setAttribute('style', 'color: red'); });
  await until('four kinds of complaints', () => ['script-src|require-trusted-types', 'connect-src', 'style-src', 'require-trusted-types-for']
    .every((rule) => page.complaints().some((text) => new RegExp(`policy violated: (${rule})`).test(text))));
  page.expected.push(/./);
});

async function main() {
  const [binary, only = ''] = process.argv.slice(2);
  const server = await Server.start(binary);
  const browser = await browse();
  let failures = 0;
  const began = Date.now();
  try {
    for (const { name, run, options } of checks.filter((one) => one.name.includes(only))) {
      const start = Date.now();
      let page = await open(browser, server, options);
      try {
        page = await run({ page, browser, server }) ?? page;
        assert.deepEqual(page.complaints(), []);
        console.log(`ok    ${name} (${((Date.now() - start) / 1000).toFixed(1)} s)`);
      } catch (error) {
        failures += 1;
        console.log(`FAIL  ${name}\n      ${error.stack ?? error}\n      ${page.complaints().join('\n      ')}`);
      }
      await Promise.all(browser.contexts().map((context) => context.close()));
    }
  } finally {
    await browser.close();
    await server.stop();
  }
  console.log(`${checks.length} checks of the page, ${failures} failed, ${((Date.now() - began) / 1000).toFixed(0)} s`);
  process.exitCode = failures ? 1 : 0;
}

await main();
