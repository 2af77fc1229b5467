// Talks to /v1 of the server that the page came from. The key travels in a header, which EventSource
// cannot send: the stream of events is read by hand.

/** The server answered, and it is no. */
export class Refused extends Error {
  constructor(status, { code = "", message = "", retry_after: retryAfter = null } = {}) {
    super(message || `${status}`);
    Object.assign(this, { status, code, retryAfter });
  }
}

/** How long a stream may be silent, in milliseconds: three times what the server lets pass between two comments. */
const SILENCE = 45_000;

async function request(key, path, options = {}) {
  const response = await fetch(path, {
    ...options,
    headers: { ...options.headers, Authorization: `Bearer ${key}` },
    cache: "no-store",
    credentials: "omit",
    redirect: "error",
    referrerPolicy: "no-referrer",
  });
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  throw new Refused(response.status, body.error);
}

/** How the server and its sources are; of one source where a name is given. */
export async function status(key, name) {
  const query = name === undefined ? "" : `?source=${encodeURIComponent(name)}`;
  const response = await request(key, `v1/status${query}`, { signal: AbortSignal.timeout(20_000) });
  return response.json();
}

/** Asks for a new token. The answer holds its value, so it is thrown away unread. */
export async function refresh(key, name, force) {
  const body = force
    ? { headers: { "Content-Type": "application/json" }, body: JSON.stringify({ force: true }) }
    : {};
  const path = `v1/tokens/${encodeURIComponent(name)}/refresh`;
  const response = await request(key, path, { method: "POST", ...body });
  await response.body?.cancel();
}

/** What happens, as `{ event, data }`; first of all `open`. Ends when the server ends it. */
export async function* events(key, signal) {
  const silence = new AbortController();
  let timer;
  const heard = () => {
    clearTimeout(timer);
    timer = setTimeout(() => silence.abort(), SILENCE);
  };
  const end = () => silence.abort();
  signal.addEventListener("abort", end);
  try {
    heard();
    const response = await request(key, "v1/events", { signal: silence.signal });
    const reader = response.body.getReader();
    const decoder = new TextDecoder();
    yield { event: "open" };
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      heard();
      text += decoder.decode(value, { stream: true });
      const blocks = text.split(/\r?\n\r?\n/);
      text = blocks.pop();
      for (const event of blocks.map(parse)) if (event) yield event;
    }
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", end);
    silence.abort();
  }
}

/** One block of the stream; nothing where it is a comment. */
export function parse(block) {
  let event = "message";
  const data = [];
  for (const line of block.split(/\r?\n/)) {
    const [, field, value] = /^([^:]*):? ?(.*)$/.exec(line);
    if (field === "event") event = value;
    if (field === "data") data.push(value);
  }
  return data.length ? { event, data: JSON.parse(data.join("\n")) } : null;
}
