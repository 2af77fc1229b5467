"""redis-cli as scripts use it: one command a call, or many on its stdin; options are passed on."""

import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../python"))
from harness import (CA, CHANNEL, HOST, KEYSPACE, PORT, Tokens, restart, rotate, same, sensible, taken)

OPTIONS = [word for word in sys.argv[1:] if word.startswith("-")]
TLS = ["--tls", "--cacert", CA] if CA else []
CLI = ["redis-cli", *TLS, *OPTIONS, "-h", HOST, "-p", str(PORT)]


def ask(*words, lines=None):
    """What it writes, line by line, for a command in its arguments or for those on its stdin."""
    done = subprocess.run([*CLI, *words], input=lines, capture_output=True, text=True, timeout=15)
    same(done.stderr, "")
    return done.stdout.splitlines()


def connect():
    same(ask("PING"), ["PONG"])


def read():
    same(ask("GET", "access_token"), [Tokens.access_token])
    same(ask("MGET", "access_token", "ticket"), [Tokens.access_token, Tokens.ticket])


def ttl():
    sensible(int(ask("TTL", "access_token")[0]), int(ask("PTTL", "access_token")[0]))


def pipeline():
    value, life, other = ask(lines="GET access_token\nTTL access_token\nGET ticket\n")
    same((value, other), (Tokens.access_token, Tokens.ticket))
    sensible(int(life), int(life) * 1000)


def transaction():
    *queued, value, life = ask(lines="MULTI\nGET access_token\nTTL access_token\nEXEC\n")
    same(queued, ["OK", "QUEUED", "QUEUED"])
    same(value, Tokens.access_token)
    sensible(int(life), int(life) * 1000)


def missing():
    same(ask("GET", "nobody"), [""])
    same(ask("TTL", "nobody"), ["-2"])


def refused():
    answer, value = [line for line in ask(lines="SET access_token x\nGET access_token\n") if line]
    same(answer.split()[0], "READONLY")
    same(value, Tokens.access_token)


def started(*words):
    return subprocess.Popen([*CLI, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                            stderr=subprocess.STDOUT, bufsize=1)


def reconnect():
    with started() as cli:
        cli.stdin.write("PING\n")
        same(cli.stdout.readline(), "PONG\n")
        restart()
        # The first command notices, the next one is sent on a new connection.
        cli.stdin.write("PING\nGET access_token\n")
        same([cli.stdout.readline() for _ in range(2)],
             ["Error: Server closed the connection\n", f"{Tokens.access_token}\n"])
        cli.stdin.close()


def subscribe():
    with started("SUBSCRIBE", CHANNEL, KEYSPACE) as cli:
        told = [cli.stdout.readline().strip() for _ in range(6)]
        same(told, ["subscribe", CHANNEL, "1", "subscribe", KEYSPACE, "2"])
        wanted = {(CHANNEL, rotate()), (KEYSPACE, "set")}
        while wanted:
            same(cli.stdout.readline(), "message\n")
            wanted.discard((cli.stdout.readline().strip(), cli.stdout.readline().strip()))
        cli.kill()
    read()


for step in sys.argv[1:]:
    if step not in OPTIONS:
        globals()[step]()
        taken(step)
