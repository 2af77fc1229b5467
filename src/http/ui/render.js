// A source as a row. Everything that comes from the server is set as text, never as markup.

import { duration, inLanguage, number, time, words } from "./text.js";

const DAY = 86_400;
/** The server tells so many entries of a source's history at most: then the oldest may be missing. */
const WHOLE_HISTORY = 16;
/** From this share of a day's calls on, the count is a warning; the server warns there too. */
const NEARLY_SPENT = 0.8;
/** How many readers a row names before the others are folded away. */
const NAMED_READERS = 4;
/** How often one is asked about that is overdue, in seconds: at first, and after long. */
const FIRST_ASK = 2;
const LAST_ASK = 30;

/** An element; properties that begin with `on` are listeners, the others attributes. */
export function h(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value != null) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child != null && child !== false));
  return element;
}

/** Sets a text only where it is another: what has not changed is not drawn, nor read out, again. */
export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const span = (kind, text) => h("span", { class: kind }, text);

/** Why a renewal failed, in few words. */
const why = (failure, code) => {
  const kind = words().classes[failure] ?? failure;
  return code ? `${words().errorCode(code)}${words().colon}${kind}` : kind;
};

export class Row {
  /** `ask` is called with the row's source when its button is pressed. */
  constructor(source, ask) {
    this.source = source;
    this.ask = ask;
    this.isBusy = false;
    this.isShown = false;
    this.isStale = true;
    this.asked = { at: 0, wait: FIRST_ASK };
    this.element = h("li", { class: "row", "data-state": source.state });
    this.element.row = this;
  }

  update(source) {
    const isOther = ["state", "generation", "next_renewal_at"].some((field) => source[field] !== this.source[field]);
    if (isOther) this.asked.wait = FIRST_ASK;
    const isRenewed = this.source.generation !== null && source.generation !== this.source.generation;
    this.source = source;
    this.element.dataset.state = source.state;
    this.isStale = true;
    if (isRenewed && this.isShown) {
      this.element.classList.remove("renewed");
      void this.element.offsetWidth; // so that the animation begins anew
      this.element.classList.add("renewed");
    }
  }

  /** Makes what is seen of it what it is now. */
  paint(now) {
    if (!this.parts) this.build();
    if (this.isStale) this.fill(now);
    this.isStale = false;
    this.tick(now);
  }

  /** Has everything written anew: the language is another. */
  forget() {
    this.isStale = true;
    this.parts = undefined;
  }

  setBusy(isBusy) {
    this.isBusy = isBusy;
    if (this.parts) this.paintButton();
  }

  build() {
    const { name } = this.source;
    const parts = {
      name: h("h2", {}, name),
      state: span("state", ""),
      left: span("left", ""),
      next: span("next", ""),
      level: h("i", { class: "level" }),
      notch: h("i", { class: "notch" }),
      strip: h("div", { class: "strip", role: "img" }),
      counts: span("counts", ""),
      button: h("button", { class: "plain", "aria-label": words().refreshLabel(name), onclick: () => this.ask(this) }),
      trouble: h("div", { class: "trouble" }),
      facts: h("dl", { class: "facts" }),
    };
    const hadFocus = this.element.contains(document.activeElement);
    this.element.replaceChildren(
      h("div", { class: "head" }, parts.name, parts.state),
      h("div", { class: "life" },
        h("div", { class: "pair" }, parts.left, parts.next),
        h("div", { class: "bar", "aria-hidden": "true" }, parts.level, parts.notch)),
      h("div", { class: "day" },
        h("div", { class: "pair" }, span("", words().lastDay), parts.counts),
        parts.strip),
      parts.button, parts.trouble, parts.facts);
    this.parts = parts;
    if (hadFocus) parts.button.focus();
  }

  paintButton() {
    const { button } = this.parts;
    put(button, this.isBusy ? words().fetching : words().refresh);
    button.setAttribute("aria-disabled", this.isBusy);
  }

  fill(now) {
    const { source, parts } = this;
    parts.state.replaceChildren(span("shape", ""), words().states[source.state]);
    this.paintButton();
    this.fillDay(now);
    const { last_error: trouble } = source;
    const isTrouble = trouble && !trouble.over;
    parts.trouble.hidden = !isTrouble;
    parts.trouble.replaceChildren(...(isTrouble ? this.trouble(trouble) : []));
    parts.facts.replaceChildren(...this.facts());
  }

  fillDay(now) {
    const { history } = this.source;
    const begin = now - DAY;
    const place = (at) => `${Math.min(100, Math.max(0, ((at - begin) / DAY) * 100))}%`;
    let [renewed, failed, lastFailure] = [0, 0, null];
    const marks = history.map((chapter) => {
      const { first, last, count, failure, code } = chapter;
      const mark = h("i", { class: failure ? "failed" : "success" });
      mark.style.left = place(first);
      if (failure) {
        failed += count;
        lastFailure = time(last);
        mark.style.width = `${((last - Math.max(first, begin)) / DAY) * 100}%`;
        mark.title = words().failedAt(count, lastFailure, why(failure, code));
      } else {
        renewed += 1;
        mark.title = words().renewedAt(time(last));
      }
      return mark;
    });
    const isPart = history.length >= WHOLE_HISTORY;
    const counts = renewed + failed ? words().ofDay(renewed, failed, isPart) : words().quietDay;
    this.parts.strip.replaceChildren(...marks);
    this.parts.strip.setAttribute("aria-label", words().dayLabel(counts, lastFailure));
    put(this.parts.counts, counts);
  }

  trouble({ at, class: failure, code, message: en, message_zh: zh, remedy }) {
    return [
      h("p", {}, h("strong", {}, why(failure, code)), " ", h("time", {}, time(at))),
      h("p", { class: "message" }, inLanguage({ en, zh })),
      h("p", { class: "remedy" }, h("b", {}, words().todo), " ", inLanguage(remedy)),
    ];
  }

  facts() {
    const { generation, calls_today: calls, on_disk: onDisk, readers, last_error: trouble } = this.source;
    const fact = (name, ...value) => h("div", {}, h("dt", {}, name), h("dd", {}, ...value));
    const facts = [];
    if (generation !== null) facts.push(fact(words().generation, `${generation}`));
    if (calls) {
      const isHigh = calls.limit && calls.made >= calls.limit * NEARLY_SPENT;
      const text = calls.limit ? words().callsOf(calls.made, calls.limit) : number(calls.made);
      facts.push(fact(words().callsToday, isHigh ? span("warning", text) : text));
    }
    if (trouble?.over) facts.push(fact(words().lastFailure, words().over(time(trouble.at), why(trouble.class, trouble.code))));
    if (onDisk === false) facts.push(h("div", {}, h("dd", { class: "warning" }, words().memoryOnly)));
    if (readers) facts.push(fact(words().readBy, ...this.readers(readers)));
    return facts;
  }

  readers(readers) {
    if (readers.length === 0) return [words().nobody];
    const chips = readers.map(({ client, protocol, reads, recent_reads: recent, last_read_at: last }) => {
      const more = words().readerMore(recent, last === null ? "–" : time(last));
      const title = client === "default" ? `${words().defaultReader} ${more}` : more;
      return h("span", { class: "reader", title }, words().reader(client, protocol.toUpperCase(), reads));
    });
    const rest = chips.splice(NAMED_READERS);
    if (rest.length) chips.push(h("details", {}, h("summary", {}, words().more(rest.length)), ...rest));
    return chips;
  }

  /** What changes by the mere passing of time. */
  tick(now) {
    const { source, parts } = this;
    const { expires_at: end, fetched_at: begin, next_renewal_at: next } = source;
    const left = end === null ? 0 : Math.max(0, end - now);
    put(parts.left, end === null ? words().never : left > 0 ? words().left(duration(left)) : words().endedAgo(duration(now - end, true)));
    put(parts.next, this.next(next, now));
    const whole = end === null ? 0 : end - begin;
    const share = (seconds) => (whole > 0 ? Math.min(1, Math.max(0, seconds / whole)) : 0);
    parts.level.style.transform = `scaleX(${share(left).toFixed(4)})`;
    const atNotch = next === null || left === 0 ? 0 : share(end - next);
    parts.notch.hidden = atNotch === 0;
    parts.notch.style.left = `${atNotch * 100}%`;
  }

  next(next, now) {
    const isWell = this.source.state === "live";
    if (next === null) return isWell ? words().renewing : words().trying;
    if (next <= now) return words().anyMoment;
    return (isWell ? words().renewsIn : words().triesIn)(duration(next - now));
  }

  /** Whether it is time to ask about it: what is known of it has been overtaken, and was not just asked for. */
  isDue(now) {
    const { next_renewal_at: next, expires_at: end, state } = this.source;
    const hasEnded = end !== null && end <= now && state !== "expired";
    const isOvertaken = hasEnded || next === null || next + 1 < now;
    if (!isOvertaken || now - this.asked.at < this.asked.wait) return false;
    this.asked = { at: now, wait: Math.min(LAST_ASK, this.asked.wait * 2) };
    return true;
  }
}
