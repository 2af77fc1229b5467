// The page: who looks at it, what they see, and how it is kept up to date.

import { Refused, refresh, status } from "./api.js";
import { Connection } from "./live.js";
import { Row, h, put } from "./render.js";
import { duration, number, setLanguage, words } from "./text.js";

const $ = (id) => document.getElementById(id);
const STATES = ["live", "failing", "expired", "absent"];
/** Trouble stands on top. */
const ORDER = { expired: 0, absent: 0, failing: 1, live: 2 };
/** How long news is gathered before it is asked about, in milliseconds; and how much of it is asked for one by one. */
const GATHER = 150;
const FEW = 6;
/** Readers and calls change without an event: everything is looked at this often, in seconds. */
const LOOK_AGAIN = 60;

const kept = {
  get: (store, name) => { try { return store.getItem(name); } catch { return null; } },
  set: (store, name, value) => { try { value === null ? store.removeItem(name) : store.setItem(name, value); } catch { /* it is forgotten */ } },
};

/** One visit: from the key to signing out. */
let visit = null;
/** The rows by name, in the order of the config. */
const rows = new Map();
const seen = new Set();
const filter = { text: "", state: null };

// --- words and colours

function paintWords() {
  for (const element of document.querySelectorAll("[data-text]")) put(element, words()[element.dataset.text]);
  for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", words()[element.dataset.label]);
  for (const element of document.querySelectorAll("[data-placeholder]")) element.placeholder = words()[element.dataset.placeholder];
  paintTheme();
  if (!visit) return;
  for (const row of rows.values()) row.forget();
  paintConnection();
  paintBoard();
}

function paintTheme() {
  const label = words().themes[document.documentElement.dataset.choice];
  $("theme").setAttribute("aria-label", label);
  $("theme").title = label;
}

$("language").addEventListener("click", () => {
  const lang = document.documentElement.lang === "en" ? "zh-CN" : "en";
  setLanguage(lang);
  kept.set(localStorage, "language", lang);
  paintWords();
});

$("theme").addEventListener("click", () => {
  const next = { system: "light", light: "dark", dark: null }[document.documentElement.dataset.choice];
  kept.set(localStorage, "theme", next);
  dispatchEvent(new Event("theme")); // early.js repaints
  paintTheme();
});

/** Says it to those who listen. */
const speak = (text) => { $("spoken").textContent = text; };

/** Says it to everybody, for as long as they like. */
function note(text, isBad) {
  const close = () => one.remove();
  const one = h("div", { class: isBad ? "note bad" : "note" }, h("span", {}, text),
    h("button", { class: "quiet", "aria-label": words().dismiss, onclick: close }, "×"));
  $("notes").replaceChildren(one);
  if (!isBad) setTimeout(close, 8_000);
}

// --- signing in

function showSignIn(error = "") {
  $("board").hidden = $("sign-out").hidden = $("connection").hidden = $("lost").hidden = true;
  $("sign-in").hidden = false;
  $("in-the-clear").hidden = isSecureContext;
  document.title = words().title;
  showKeyError(error);
  $("key").focus();
}

function showKeyError(error) {
  put($("key-error"), error);
  $("key").setAttribute("aria-invalid", error !== "");
}

function reasonOf(error) {
  if (!(error instanceof Refused)) return words().unreachable;
  if (error.status === 401) return words().keyUnknown;
  if (error.code === "too_many_wrong_keys") return words().keysTooMany(error.retryAfter ?? 60);
  return words().unexpected(error.message);
}

$("sign-in").addEventListener("submit", async (event) => {
  event.preventDefault();
  const key = $("key").value.trim();
  // What a header cannot carry is no key of this server's.
  if (!key || !/^[\x20-\x7e]+$/.test(key)) {
    showKeyError(key ? words().keyUnknown : words().keyMissing);
    $("key").focus();
    return;
  }
  const button = $("enter");
  button.disabled = true;
  put(button, words().signingIn);
  try {
    const first = await status(key);
    kept.set(sessionStorage, "client-key", key);
    $("key").value = "";
    enter(key, first);
  } catch (error) {
    showKeyError(reasonOf(error));
    $("key").focus();
  } finally {
    button.disabled = false;
    put(button, words().signIn);
  }
});

$("sign-out").addEventListener("click", () => leave());

function enter(key, first) {
  const mine = { key, now: () => Date.now() / 1000, gathered: new Set(), lookedAt: 0, hasEnded: false };
  visit = mine;
  $("sign-in").hidden = true;
  $("board").hidden = $("sign-out").hidden = $("connection").hidden = false;
  mine.connection = new Connection(key, {
    look: () => look(mine),
    happened,
    changed: connectionChanged,
    refused: () => leave(words().keyNoMore),
  });
  if (first) take(first);
  else paintBoard();
  paintConnection();
}

function leave(error) {
  if (visit) visit.hasEnded = true;
  visit?.connection.end();
  visit = null;
  kept.set(sessionStorage, "client-key", null);
  rows.clear();
  seen.clear();
  $("sources").replaceChildren();
  $("notes").replaceChildren();
  if ($("confirm").open) $("confirm").close("no");
  showSignIn(error);
}

// --- what the server says

/** Takes over an answer about every source. */
function take(answer) {
  const at = performance.now();
  visit.now = () => answer.now + (performance.now() - at) / 1000;
  visit.lookedAt = answer.now;
  visit.answer = { version: answer.version, startedAt: answer.started_at };
  const names = new Set(answer.sources.map((source) => source.name));
  for (const [name, row] of rows) {
    if (names.has(name)) continue;
    watcher.unobserve(row.element);
    seen.delete(row);
    row.element.remove();
    rows.delete(name);
  }
  answer.sources.forEach(takeOne);
  paintBoard();
}

function takeOne(source) {
  const row = rows.get(source.name);
  if (row) return row.update(source);
  const made = new Row(source, confirmRefresh);
  rows.set(source.name, made);
  watcher.observe(made.element);
}

async function look(mine) {
  const answer = await status(mine.key);
  if (!mine.hasEnded) take(answer);
}

/** Asks about these soon, together with what else is gathered until then. `null`: about everything. */
function askAbout(name) {
  if (!visit || visit.connection.state === "lost") return;
  visit.gathered.add(name);
  visit.timer ??= setTimeout(gather, GATHER, visit);
}

async function gather(mine) {
  if (mine.hasEnded) return;
  const names = [...mine.gathered];
  mine.gathered.clear();
  try {
    if (names.includes(null) || names.length > FEW) {
      await look(mine);
    } else {
      const answers = await Promise.all(names.map((name) => status(mine.key, name)));
      if (mine.hasEnded) return;
      answers.forEach((answer) => answer.sources.forEach(takeOne));
      paintBoard();
    }
  } catch (error) {
    if (mine.hasEnded) return;
    if (error.status === 401) leave(words().keyNoMore);
    // A source that is gone; else the stream notices soon enough that nobody is there.
    if (error.status === 404) mine.gathered.add(null);
  } finally {
    mine.timer = undefined;
    if (mine.gathered.size && !mine.hasEnded) mine.timer = setTimeout(gather, GATHER, mine);
  }
}

function happened({ event, data }) {
  if (event === "failing") speak(words().beganToFail(data.name));
  if (event === "recovered") speak(words().recovered(data.name));
  askAbout(event === "resync" ? null : data.name);
}

// --- staying connected

function connectionChanged(before) {
  if (!visit?.connection) return;
  const { state } = visit.connection;
  // Said once; the countdown is to be seen only.
  if (state === "lost" && before !== "lost") speak(words().connection.lost);
  if (state === "live" && before === "lost") speak(words().back);
  paintConnection();
}

function paintConnection() {
  const { state, seconds, isCrowded } = visit.connection;
  const isLost = state === "lost";
  $("connection").dataset.state = state;
  put($("connection"), words().connection[state]);
  $("lost").hidden = !isLost;
  put($("lost").firstElementChild, isCrowded && seconds ? words().crowded(seconds) : words().lost(seconds));
  document.body.classList.toggle("is-lost", isLost);
}

$("lost").querySelector("button").addEventListener("click", () => visit?.connection.retry());

// --- the board

const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    target.row.isShown = isIntersecting;
    if (isIntersecting) seen.add(target.row);
    else seen.delete(target.row);
    if (isIntersecting && visit) target.row.paint(visit.now());
  }
}, { rootMargin: "400px 0px" });

function paintBoard() {
  const all = [...rows.values()];
  const counts = Object.fromEntries(STATES.map((state) => [state, 0]));
  for (const { source } of all) counts[source.state] += 1;
  paintChips(all.length, counts);
  arrange(all);
  const now = visit.now();
  for (const row of seen) row.paint(now);
  paintSummary(all, counts);
}

/** Puts the rows into their order and hides those that are not wanted; leaves alone what is in place. */
function arrange(all) {
  const list = $("sources");
  const focused = document.activeElement;
  const sorted = all.map((row, at) => [ORDER[row.source.state], at, row]).sort((a, b) => a[0] - b[0] || a[1] - b[1]);
  let place = list.firstElementChild;
  let shown = 0;
  for (const [, , row] of sorted) {
    const { name, state } = row.source;
    const isWanted = name.toLowerCase().includes(filter.text) && (!filter.state || filter.state === state);
    if (row.element.hidden === isWanted) row.element.hidden = !isWanted;
    shown += isWanted;
    if (row.element === place) place = place.nextElementSibling;
    else list.insertBefore(row.element, place);
  }
  if (focused !== document.activeElement && list.contains(focused)) focused.focus({ preventScroll: true });
  $("nothing").hidden = shown > 0 || all.length === 0;
  list.hidden = shown === 0;
}

function paintChips(total, counts) {
  $("tools").hidden = total < 2;
  // A state that nothing is in any more would show nothing for ever.
  if (filter.state && counts[filter.state] === 0) filter.state = null;
  const choices = [[null, total], ...STATES.map((state) => [state, counts[state]])];
  const chips = $("chips");
  if (!chips.childElementCount) {
    for (const [state] of choices) {
      const toggle = () => { filter.state = state; paintBoard(); };
      chips.append(h("button", { class: "chip", "data-state": state ?? "all", onclick: toggle },
        h("span", { class: "shape" }), h("span"), " ", h("b")));
    }
  }
  choices.forEach(([state, count], at) => {
    const chip = chips.children[at];
    chip.hidden = state !== null && count === 0;
    chip.setAttribute("aria-pressed", filter.state === state);
    put(chip.children[1], state ? words().states[state] : words().all);
    put(chip.children[2], number(count));
  });
}

function paintSummary(all, counts) {
  if (!visit.answer) return put($("headline"), words().connection.connecting);
  const now = visit.now();
  const lacking = counts.expired + counts.absent;
  const state = all.length === 0 ? "none" : lacking ? "lacking" : counts.failing ? "failing" : "live";
  $("summary").dataset.state = state;
  let headline = { none: words().noSources, live: words().allWell, lacking: words().lacking(lacking), failing: words().failing(counts.failing) }[state];
  if (state === "lacking" && counts.failing) headline += `${words().comma}${words().failingToo(counts.failing)}`;
  put($("headline"), headline);
  let sub = { none: words().noSourcesMore, live: words().wellMore, lacking: words().lackingMore }[state];
  if (state === "failing") {
    const ends = all.filter((row) => row.source.state === "failing").map((row) => row.source.expires_at);
    sub = words().stillFor(counts.failing, duration(roughly(Math.min(...ends) - now)));
  }
  put($("sub"), sub);
  document.title = state === "live" || state === "none" ? words().title : `${headline} – ${words().title}`;
  paintFacts(all, now);
}

/** To the minute: it is read out when it changes. */
const roughly = (seconds) => (seconds < 120 ? seconds : seconds - (seconds % 60));

function paintFacts(all, now) {
  if (!visit.answer) return;
  const { version, startedAt } = visit.answer;
  const next = Math.min(...all.map(({ source }) => (source.state === "live" ? source.next_renewal_at : null) ?? Infinity).filter((at) => at > now));
  put($("facts"), [
    words().sources(all.length),
    Number.isFinite(next) && words().nextRenewal(duration(next - now)),
    words().runningFor(duration(now - startedAt, true)),
    words().version(version),
  ].filter(Boolean).join(" · "));
}

$("filter").addEventListener("input", () => {
  filter.text = $("filter").value.trim().toLowerCase();
  if (visit) paintBoard();
});

$("show-all").addEventListener("click", () => {
  $("filter").value = filter.text = "";
  filter.state = null;
  paintBoard();
  $("filter").focus();
});

setInterval(() => {
  if (!visit?.answer || document.hidden) return;
  const now = visit.now();
  for (const row of seen) {
    if (!row.element.hidden) row.tick(now);
    if (row.isDue(now)) askAbout(row.source.name);
  }
  if (now - visit.lookedAt > LOOK_AGAIN) {
    visit.lookedAt = now;
    askAbout(null);
  }
  paintFacts([...rows.values()], now);
}, 1_000);

// --- a refresh by hand

const mayForce = (source) => source.readers !== undefined;

function confirmRefresh(row) {
  if (row.isBusy) return;
  const { name, calls_today: calls } = row.source;
  const dialog = $("confirm");
  put($("confirm-title"), words().confirmTitle(name));
  const cost = calls?.limit ? words().costCallOf(calls.made, calls.limit) : words().costCall;
  const cooldown = mayForce(row.source) ? words().costCooldown : words().costCooldownLong;
  $("costs").replaceChildren(...[cost, words().costOld, cooldown].map((text) => h("li", {}, text)));
  dialog.returnValue = "no";
  dialog.onclose = () => {
    if (dialog.returnValue === "yes" && visit) carryOut(visit, row);
  };
  dialog.showModal();
}

async function carryOut(mine, row) {
  const { name, generation } = row.source;
  row.setBusy(true);
  try {
    await refresh(mine.key, name, mayForce(row.source));
    // The answer was not read: whether there is another token the generation tells.
    const answer = await status(mine.key, name);
    if (mine.hasEnded) return;
    answer.sources.forEach(takeOne);
    const isNew = answer.sources[0]?.generation !== generation;
    note(isNew ? words().fetched(name) : words().keptOld(name));
  } catch (error) {
    if (mine.hasEnded) return;
    if (error.status === 401) return leave(words().keyNoMore);
    const isOfUpstream = error.code === "upstream"; // then the row tells it, with what to do
    const why = isOfUpstream ? words().whyBelow : error instanceof Refused ? error.message : words().unreachable;
    note(words().notFetched(name, why) + (error.retryAfter ? words().again(error.retryAfter) : ""), true);
    askAbout(name);
  } finally {
    row.setBusy(false);
    if (visit === mine) paintBoard();
  }
}

// --- the beginning

paintWords();
const key = kept.get(sessionStorage, "client-key");
if (key) enter(key);
else showSignIn();
