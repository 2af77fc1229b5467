// node-redis, from 4 to 6: promises.
'use strict';
const {
  assert, tokens, rotate, restart, sensible, until, inbox, take, HOST, PORT, CA, CLIENT, CHANNEL, KEYSPACE,
} = require('./harness');
const redis = require(CLIENT);

const server = CA
  ? { url: `rediss://${HOST}:${PORT}`, socket: { tls: true, ca: CA } }
  : { url: `redis://${HOST}:${PORT}` };
const client = redis.createClient(server);
// Connections are lost in the step `reconnect`; without a listener that would end the process.
client.on('error', () => {});

async function both(commands) {
  const [token, ttl, ticket] = await commands;
  assert.deepEqual([token, ticket], [tokens.access_token, tokens.ticket]);
  sensible(ttl, ttl * 1000);
}

const steps = {
  connect: async () => assert.equal(await client.ping(), 'PONG'),
  read: async () => {
    assert.equal(await client.get('access_token'), tokens.access_token);
    assert.deepEqual(await client.mGet(['access_token', 'ticket']), [tokens.access_token, tokens.ticket]);
  },
  ttl: async () => sensible(await client.ttl('access_token'), await client.pTTL('access_token')),
  // What is asked in one turn of the event loop is sent as one pipeline.
  pipeline: () =>
    both(Promise.all([client.get('access_token'), client.ttl('access_token'), client.get('ticket')])),
  transaction: () => both(client.multi().get('access_token').ttl('access_token').get('ticket').exec()),
  missing: async () => {
    assert.equal(await client.get('nobody'), null);
    assert.equal(await client.ttl('nobody'), -2);
  },
  refused: async () => {
    await assert.rejects(client.set('access_token', 'x'), /^\w*Error: READONLY/);
    await steps.read();
  },
  reconnect: async () => {
    await restart();
    await until(async () => (await client.get('access_token')) === tokens.access_token);
  },
  subscribe: async () => {
    const subscriber = client.duplicate();
    subscriber.on('error', () => {});
    await subscriber.connect();
    const { put, has } = inbox();
    await subscriber.subscribe([CHANNEL, KEYSPACE], (message, channel) => put(channel, message));
    const generation = await rotate();
    await until(() => has(generation));
    await steps.read();
  },
  cache: async () => {
    const cache = new redis.BasicClientSideCache({ recordStats: true });
    const cached = redis.createClient({ ...server, RESP: 3, clientSideCache: cache });
    cached.on('error', (error) => { throw error; });
    await cached.connect();
    const get = () => cached.get('access_token');
    assert.equal(await get(), tokens.access_token);
    assert.equal(await get(), tokens.access_token);
    assert.equal(cache.stats().hitCount, 1);
    await rotate();
    await until(async () => (await get()) === tokens.access_token);
  },
};

client.connect().then(() => take(steps));
