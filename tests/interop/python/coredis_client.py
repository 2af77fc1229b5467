"""coredis: asynchronous, RESP3."""

import asyncio
import sys

import coredis
from coredis.exceptions import ConnectionError, ReadOnlyError
from coredis.patterns.cache import LRUCache

from harness import (CHANNEL, HOST, KEYSPACE, PORT, Tokens, restart, rotate, same, sensible, taken,
                     tries)


async def connect(client):
    same(await client.ping(), "PONG")


async def read(client):
    same(await client.get("access_token"), Tokens.access_token)
    same(list(await client.mget(["access_token", "ticket"])), [Tokens.access_token, Tokens.ticket])


async def ttl(client):
    sensible(await client.ttl("access_token"), await client.pttl("access_token"))


async def pipeline(client, transaction=False):
    async with client.pipeline(transaction=transaction) as commands:
        value = commands.get("access_token")
        life = commands.ttl("access_token")
    same(await value, Tokens.access_token)
    sensible(await life, await life * 1000)


async def transaction(client):
    await pipeline(client, transaction=True)


async def missing(client):
    same((await client.get("nobody"), await client.ttl("nobody")), (None, -2))


async def refused(client):
    try:
        await client.set("access_token", "x")
        raise AssertionError("SET was accepted")
    except ReadOnlyError:
        await read(client)


async def reconnect(client):
    restart()
    for _ in tries():
        try:
            return same(await client.get("access_token"), Tokens.access_token)
        except ConnectionError:
            pass


async def subscribe(client):
    async with client.pubsub() as subscription:
        await subscription.subscribe(CHANNEL, KEYSPACE)
        for _ in range(2):
            same((await subscription.get_message(timeout=5))["type"], "subscribe")
        wanted = {(CHANNEL, rotate()), (KEYSPACE, "set")}
        while wanted:
            message = await subscription.get_message(timeout=5)
            assert message, f"no {wanted}"
            wanted.discard((message["channel"], message["data"]))
    await read(client)


async def cache(_):
    kept = LRUCache()
    async with coredis.Redis(host=HOST, port=PORT, decode_responses=True, cache=kept) as cached:
        same(await cached.get("access_token"), Tokens.access_token)
        same(await cached.get("access_token"), Tokens.access_token)
        same(kept.stats.summary["hits"], 1)
        rotate()
        for _ in tries():
            # What the server pushed is read between two waits.
            await asyncio.sleep(0)
            if await cached.get("access_token") == Tokens.access_token:
                break


async def main():
    async with coredis.Redis(host=HOST, port=PORT, decode_responses=True) as client:
        for step in sys.argv[1:]:
            await globals()[step](client)
            taken(step)


asyncio.run(main())
