"""redis-py, from 3 to 8."""

import sys

import redis

from harness import (CA, CHANNEL, CONTROL, HOST, KEYSPACE, PORT, Tokens, restart, rotate, same, sensible, taken,
                     tries)

TLS = {"ssl": True, "ssl_ca_certs": CA} if CA else {}
client = redis.Redis(host=HOST, port=PORT, decode_responses=True, **TLS)


def connect():
    assert client.ping()


def read():
    same(client.get("access_token"), Tokens.access_token)
    same(client.mget("access_token", "ticket"), [Tokens.access_token, Tokens.ticket])


def ttl():
    sensible(client.ttl("access_token"), client.pttl("access_token"))


def pipeline(transaction=False):
    with client.pipeline(transaction=transaction) as commands:
        value, life, other = commands.get("access_token").ttl("access_token").get("ticket").execute()
    same((value, other), (Tokens.access_token, Tokens.ticket))
    sensible(life, life * 1000)


def transaction():
    pipeline(transaction=True)


def missing():
    same((client.get("nobody"), client.ttl("nobody")), (None, -2))


def refused():
    try:
        client.set("access_token", "x")
        raise AssertionError("SET was accepted")
    except redis.ReadOnlyError:
        same(client.get("access_token"), Tokens.access_token)


def reconnect():
    restart()
    for _ in tries():
        try:
            return same(client.get("access_token"), Tokens.access_token)
        except redis.ConnectionError:
            pass


def subscribe():
    with client.pubsub() as subscription:
        subscription.subscribe(CHANNEL, KEYSPACE)
        for _ in range(2):
            same(subscription.get_message(timeout=5)["type"], "subscribe")
        generation = rotate()
        wanted = {(CHANNEL, generation), (KEYSPACE, "set")}
        for _ in tries():
            message = subscription.get_message(timeout=1)
            if message:
                wanted.discard((message["channel"], message["data"]))
            if not wanted:
                break
    same(client.get("access_token"), Tokens.access_token)


def cache():
    from redis.cache import CacheConfig
    from redis.connection import CacheProxyConnection

    if CONTROL:
        # redis-py has no cache for a server that says it is older than 7.4; Debian's does.
        CacheProxyConnection.MIN_ALLOWED_VERSION = "7.0.0"
    cached = redis.Redis(host=HOST, port=PORT, decode_responses=True, protocol=3,
                         cache_config=CacheConfig(), **TLS)
    old = Tokens.access_token
    same(cached.get("access_token"), old)
    same(cached.get_cache().size, 1)
    same(cached.get("access_token"), old)
    rotate()
    for _ in tries():
        if cached.get("access_token") == Tokens.access_token:
            break


for step in sys.argv[1:]:
    globals()[step]()
    taken(step)
