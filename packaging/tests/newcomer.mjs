// The page at /ui, as somebody new sees it: the key from standard input, then both sources, live.
//
//     node packaging/tests/newcomer.mjs http://127.0.0.1:12123 <KEY
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { browse, open } from '../../tests/ui/harness.mjs';

const url = process.argv[2];
const browser = await browse();
try {
  const page = await open(browser, { url });
  await page.goto(`${url}/ui`);
  await page.locator('#key').fill(readFileSync(0, 'utf8').trim());
  await page.keyboard.press('Enter');
  await page.locator('#connection[data-state=live]').waitFor();
  for (const name of ['access_token', 'ticket']) await page.locator(`h2:text-is("${name}")`).waitFor();
  assert.deepEqual(page.complaints(), []);
  console.log('  ok  the page shows both sources, live, without a complaint of the browser');
} finally {
  await browser.close();
}
