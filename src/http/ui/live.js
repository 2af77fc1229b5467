// Stays connected to the stream of events: connects again with growing waits, and gives the stream back
// while nobody looks at the page, since a client has so many places for streams and a browser so many
// connections.

import { events } from "./api.js";

/** A page that nobody looks at gives its stream back after so long, in milliseconds. */
const UNSEEN = 60_000;
/** The waits between attempts to connect, in seconds. */
const FIRST_WAIT = 1;
const LONGEST_WAIT = 30;
/** How often a countdown is looked at, in milliseconds. */
const COUNT = 250;

export class Connection {
  /** `connecting`, `live`, `lost` or `paused`. */
  state = "connecting";
  /** While it is lost: how many seconds until the next attempt, and whether there was no place for a stream. */
  seconds = 0;
  isCrowded = false;

  #ended = new AbortController();
  #stream;
  #wake;
  #isUnseen = false;
  #hiding;

  /**
   * Connects at once. `look` is called, and awaited, after each connect: events are not kept for who is away.
   * Then `happened` with each event; `changed`, when one of the fields above has; `refused`, when the key is
   * not accepted.
   */
  constructor(key, { look, happened, changed, refused }) {
    Object.assign(this, { key, look, happened, changed, refused });
    document.addEventListener("visibilitychange", () => this.#notice(), { signal: this.#ended.signal });
    this.#keep();
  }

  get hasEnded() {
    return this.#ended.signal.aborted;
  }

  end() {
    this.#ended.abort();
    this.#stream?.abort();
    this.#wake?.();
    clearTimeout(this.#hiding);
  }

  /** Does not wait any longer for the next attempt. */
  retry() {
    this.#wake?.();
  }

  async #keep() {
    for (let failures = 0; !this.hasEnded;) {
      if (this.#isUnseen) {
        this.#become("paused");
        await new Promise((wake) => { this.#wake = wake; });
        this.#become("connecting");
        continue;
      }
      let wait = 0;
      this.isCrowded = false;
      try {
        this.#stream = new AbortController();
        for await (const happening of events(this.key, this.#stream.signal)) {
          if (this.hasEnded) return;
          if (happening.event !== "open") {
            this.happened(happening);
            continue;
          }
          await this.look();
          failures = 0;
          this.#become("live");
        }
      } catch (error) {
        if (!this.hasEnded && error.status === 401) return this.refused();
        wait = error.retryAfter ?? 0;
        this.isCrowded = error.code === "too_many_waiting";
      }
      if (this.hasEnded || this.#isUnseen) continue;
      failures += 1;
      // Spread, so that all pages do not come at once after a restart.
      const backOff = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** (failures - 1)) * (0.75 + Math.random() / 2);
      await this.#countDown(Math.max(wait, backOff));
    }
  }

  /** Waits, and tells for how long; ends early where the user or the network says so. */
  #countDown(seconds) {
    return new Promise((resolve) => {
      const end = performance.now() + seconds * 1000;
      const finish = () => {
        clearInterval(timer);
        removeEventListener("online", finish);
        this.seconds = 0;
        this.#become("lost");
        resolve();
      };
      const count = () => {
        this.seconds = Math.ceil((end - performance.now()) / 1000);
        if (this.seconds > 0) this.#become("lost");
        else finish();
      };
      const timer = setInterval(count, COUNT);
      addEventListener("online", finish);
      this.#wake = finish;
      count();
    });
  }

  #become(state) {
    const before = this.state;
    this.state = state;
    if (!this.hasEnded) this.changed(before);
  }

  #notice() {
    clearTimeout(this.#hiding);
    if (!document.hidden) {
      if (this.#isUnseen) this.#wake?.();
      this.#isUnseen = false;
      return;
    }
    this.#hiding = setTimeout(() => {
      this.#isUnseen = true;
      this.#stream.abort();
    }, UNSEEN);
  }
}
