"""What the Python scripts share: the way to the harness, the steps, and a try that is repeated."""

import os
import sys
import time
import traceback

HOST, PORT = os.environ["HOST"], int(os.environ["PORT"])
# Whether this is redis-server, for the few scripts that must tell.
CONTROL = os.environ["TARGET"] == "redis"
# The certificate to trust, where the server speaks TLS.
CA = os.environ.get("CA")
LIFETIME = 7200
CHANNEL, KEYSPACE = "token:access_token", "__keyspace@0__:access_token"


class Tokens:
    """What must be read right now."""

    access_token = os.environ["TOKEN"]
    ticket = os.environ["TICKET"]


def explain(_, error, __):
    """Ends stderr with one line that says what went wrong."""
    traceback.print_exception(error, file=sys.stderr)
    while getattr(error, "exceptions", None):
        error = error.exceptions[0]
    print(f"{type(error).__name__}: {error}".replace("\n", " "), file=sys.stderr)


sys.excepthook = explain


def ask(request):
    print(request, flush=True)
    return sys.stdin.readline().split()


def rotate():
    """Has the token rotated; the answer is its generation."""
    Tokens.access_token, generation = ask("@rotate")
    return generation


def restart():
    ask("@restart")


def taken(step):
    print("ok", step, flush=True)


def same(got, wanted):
    assert got == wanted, f"got {got!r} instead of {wanted!r}"


def sensible(ttl, pttl):
    assert 0 < ttl <= LIFETIME, f"TTL {ttl}"
    assert abs(pttl / 1000 - ttl) < 2, f"TTL {ttl}, PTTL {pttl}"


def tries():
    """For `for _ in tries()`: what is awaited must be there within ten seconds."""
    for _ in range(200):
        yield
        time.sleep(0.05)
    raise AssertionError("it did not come within ten seconds")
