// What the Node scripts share: the way to the harness, the steps, and a try that is repeated.
'use strict';
const assert = require('node:assert/strict');
const lines = require('node:readline').createInterface({ input: process.stdin })[Symbol.asyncIterator]();

const LIFETIME = 7200;
const CHANNEL = 'token:access_token', KEYSPACE = '__keyspace@0__:access_token';
const { HOST, CLIENT, TICKET } = process.env;
const PORT = Number(process.env.PORT);
// The certificate to trust, where the server speaks TLS.
const CA = process.env.CA && require('node:fs').readFileSync(process.env.CA);

// What must be read right now.
const tokens = { access_token: process.env.TOKEN, ticket: TICKET };

async function ask(request) {
  console.log(request);
  return (await lines.next()).value.split(' ');
}

// Has the token rotated; the answer is its generation.
async function rotate() {
  const [token, generation] = await ask('@rotate');
  tokens.access_token = token;
  return generation;
}

const restart = () => ask('@restart');

function sensible(ttl, pttl) {
  assert(ttl > 0 && ttl <= LIFETIME, `TTL ${ttl}`);
  assert(Math.abs(pttl / 1000 - ttl) < 2, `TTL ${ttl}, PTTL ${pttl}`);
}

// Repeats `attempt` until it answers with something true; an error is taken for a no.
async function until(attempt) {
  let failure = 'it did not come within ten seconds';
  for (let tries = 0; tries < 200; tries++) {
    try {
      if (await attempt()) return;
    } catch (error) {
      failure = error;
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw failure;
}

// Collects what arrives on both channels until each has brought what `generation` wants.
function inbox() {
  const arrived = new Set();
  return {
    put: (channel, message) => arrived.add(`${channel} ${message}`),
    has: (generation) => arrived.has(`${CHANNEL} ${generation}`) && arrived.has(`${KEYSPACE} set`),
  };
}

async function take(steps) {
  for (const step of process.argv.slice(2)) {
    await steps[step]();
    console.log(`ok ${step}`);
  }
  process.exit(0);
}

// Ends stderr with one line that says what went wrong; rejections that nobody handles come here too.
process.on('uncaughtException', (error) => {
  console.error(`${error.stack}\n${String(error.message ?? error).replaceAll('\n', ' ')}`);
  process.exit(1);
});

module.exports = {
  assert, tokens, rotate, restart, sensible, until, inbox, take, HOST, PORT, CA, CLIENT, CHANNEL, KEYSPACE,
};
