"""valkey-glide: asynchronous, RESP3, its core written in Rust."""

import asyncio
import sys

from glide import (Batch, ClientSideCache, ConnectionError, GlideClient, GlideClientConfiguration,
                   NodeAddress, RequestError, TimeoutError)

from harness import (CHANNEL, CONTROL, HOST, KEYSPACE, PORT, Tokens, restart, rotate, same, sensible, taken,
                     tries)


def dial(**more):
    # The control is a replica, which it connects to only when told that it may not write.
    return GlideClient.create(GlideClientConfiguration(
        [NodeAddress(HOST, PORT)], request_timeout=2000, read_only=CONTROL, **more))


async def connect(client):
    same(await client.ping(), b"PONG")


async def read(client):
    same(await client.get("access_token"), Tokens.access_token.encode())
    same(await client.mget(["access_token", "ticket"]),
         [Tokens.access_token.encode(), Tokens.ticket.encode()])


async def ttl(client):
    sensible(await client.ttl("access_token"), await client.pttl("access_token"))


async def pipeline(client, is_atomic=False):
    commands = Batch(is_atomic=is_atomic).get("access_token").ttl("access_token")
    value, life = await client.exec(commands, raise_on_error=True)
    same(value, Tokens.access_token.encode())
    sensible(life, life * 1000)


async def transaction(client):
    await pipeline(client, is_atomic=True)


async def missing(client):
    same((await client.get("nobody"), await client.ttl("nobody")), (None, -2))


async def refused(client):
    try:
        await client.set("access_token", "x")
        raise AssertionError("SET was accepted")
    except RequestError as error:
        # It shows the error's code in a spelling of its own.
        assert "readonly" in str(error).lower().replace(" ", ""), error
    await read(client)


async def reconnect(client):
    restart()
    for _ in tries():
        try:
            return same(await client.get("access_token"), Tokens.access_token.encode())
        except (ConnectionError, TimeoutError):
            pass


async def subscribe(client):
    await client.subscribe({CHANNEL, KEYSPACE}, timeout_ms=5000)
    wanted = {(CHANNEL, rotate()), (KEYSPACE, "set")}
    while wanted:
        message = await asyncio.wait_for(client.get_pubsub_message(), 5)
        wanted.discard((message.channel.decode(), message.message.decode()))
    await read(client)


async def cache(_):
    cached = await dial(client_side_cache=ClientSideCache.create(
        max_cache_kb=100, entry_ttl_ms=0, enable_metrics=True, server_assisted=True))
    same(await cached.get("access_token"), Tokens.access_token.encode())
    same(await cached.get("access_token"), Tokens.access_token.encode())
    same(cached.get_cache_hit_rate(), 0.5)
    rotate()
    for _ in tries():
        if await cached.get("access_token") == Tokens.access_token.encode():
            break


async def main():
    client = await dial()
    for step in sys.argv[1:]:
        await globals()[step](client)
        taken(step)


asyncio.run(main())
