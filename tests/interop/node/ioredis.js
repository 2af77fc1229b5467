// ioredis, from 4 to 6.
'use strict';
const {
  assert, tokens, rotate, restart, sensible, until, inbox, take, HOST, PORT, CA, CLIENT, CHANNEL, KEYSPACE,
} = require('./harness');
const library = require(CLIENT);
const Redis = library.Redis ?? library;

const client = new Redis(PORT, HOST, CA ? { tls: { ca: CA } } : {});
// Connections are lost in the step `reconnect`; without a listener that would be printed.
client.on('error', () => {});

async function both(commands) {
  const results = await commands.get('access_token').ttl('access_token').get('ticket').exec();
  const [token, ttl, ticket] = results.map(([error, value]) => assert.ifError(error) ?? value);
  assert.deepEqual([token, ticket], [tokens.access_token, tokens.ticket]);
  sensible(ttl, ttl * 1000);
}

const steps = {
  connect: async () => assert.equal(await client.ping(), 'PONG'),
  read: async () => {
    assert.equal(await client.get('access_token'), tokens.access_token);
    assert.deepEqual(await client.mget('access_token', 'ticket'), [tokens.access_token, tokens.ticket]);
  },
  ttl: async () => sensible(await client.ttl('access_token'), await client.pttl('access_token')),
  pipeline: () => both(client.pipeline()),
  transaction: () => both(client.multi()),
  missing: async () => {
    assert.equal(await client.get('nobody'), null);
    assert.equal(await client.ttl('nobody'), -2);
  },
  refused: async () => {
    await assert.rejects(client.set('access_token', 'x'), /ReplyError: READONLY/);
    await steps.read();
  },
  reconnect: async () => {
    await restart();
    await until(async () => (await client.get('access_token')) === tokens.access_token);
  },
  subscribe: async () => {
    const subscriber = client.duplicate();
    subscriber.on('error', () => {});
    const { put, has } = inbox();
    subscriber.on('message', put);
    assert.equal(await subscriber.subscribe(CHANNEL, KEYSPACE), 2);
    const generation = await rotate();
    await until(() => has(generation));
    await steps.read();
  },
};

take(steps);
