// node-redis 3: callbacks.
'use strict';
const { promisify } = require('node:util');
const {
  assert, tokens, rotate, restart, sensible, until, inbox, take, HOST, PORT, CLIENT, CHANNEL, KEYSPACE,
} = require('./harness');
const redis = require(CLIENT);

const client = redis.createClient({ host: HOST, port: PORT });
// Connections are lost in the step `reconnect`; without a listener that would end the process.
client.on('error', () => {});
const command = (name, ...parameters) => promisify(client[name]).call(client, ...parameters);

async function both(commands) {
  commands.get('access_token').ttl('access_token').get('ticket');
  const [token, ttl, ticket] = await promisify(commands.exec).call(commands);
  assert.deepEqual([token, ticket], [tokens.access_token, tokens.ticket]);
  sensible(ttl, ttl * 1000);
}

const steps = {
  connect: async () => assert.equal(await command('ping'), 'PONG'),
  read: async () => {
    assert.equal(await command('get', 'access_token'), tokens.access_token);
    const all = await command('mget', 'access_token', 'ticket');
    assert.deepEqual(all, [tokens.access_token, tokens.ticket]);
  },
  ttl: async () => sensible(await command('ttl', 'access_token'), await command('pttl', 'access_token')),
  pipeline: () => both(client.batch()),
  transaction: () => both(client.multi()),
  missing: async () => {
    assert.equal(await command('get', 'nobody'), null);
    assert.equal(await command('ttl', 'nobody'), -2);
  },
  refused: async () => {
    await assert.rejects(command('set', 'access_token', 'x'), { code: 'READONLY' });
    await steps.read();
  },
  reconnect: async () => {
    await restart();
    await until(async () => (await command('get', 'access_token')) === tokens.access_token);
  },
  subscribe: async () => {
    const subscriber = client.duplicate();
    const { put, has } = inbox();
    subscriber.on('message', put);
    await promisify(subscriber.subscribe).call(subscriber, CHANNEL, KEYSPACE);
    const generation = await rotate();
    await until(() => has(generation));
    await steps.read();
  },
};

take(steps);
