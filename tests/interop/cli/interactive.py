"""redis-cli as a person uses it: at a prompt on a terminal."""

import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../python"))
from harness import CHANNEL, HOST, KEYSPACE, PORT, Tokens, restart, rotate, sensible, taken

child, terminal = pty.fork()
if child == 0:
    os.environ["TERM"] = "xterm"
    os.execlp("redis-cli", "redis-cli", "-h", HOST, "-p", str(PORT))

# A terminal of no width would be asked for it.
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 200, 0, 0))

screen = ""


def shows(pattern, patience=15):
    """Waits until the terminal shows the pattern, and forgets what came up to there."""
    global screen
    deadline = time.monotonic() + patience
    while not (found := re.search(pattern, screen)):
        left = deadline - time.monotonic()
        assert left > 0 and select.select([terminal], [], [], left)[0], \
            f"no {pattern!r} but {screen[-200:]!r}"
        # Without what moves the cursor and sets colours.
        screen += re.sub(r"\x1b\[[\d;]*\w", "", os.read(terminal, 65536).decode())
    screen = screen[found.end():]
    return found


PROMPT = re.escape(f"{HOST}:{PORT}> ")


def types(line):
    os.write(terminal, f"{line}\r".encode())


def asks(line, pattern, prompt=PROMPT):
    """Types a line; its answer must match, and a prompt must follow it."""
    types(line)
    # The line is shown as it is typed; what follows the line's end is the answer.
    return shows(rf"{re.escape(line)}\r*\n\s*{pattern}\s*?\n[^\n]*{prompt}")


def connect():
    asks("PING", "PONG")


def read():
    asks("GET access_token", f'"{Tokens.access_token}"')
    asks("MGET access_token ticket",
         rf'1\) "{Tokens.access_token}"\s+2\) "{Tokens.ticket}"')


def ttl():
    seconds = asks("TTL access_token", r"\(integer\) (\d+)")[1]
    sensible(int(seconds), int(asks("PTTL access_token", r"\(integer\) (\d+)")[1]))


def pipeline():
    """A number before a command repeats it."""
    asks("3 GET access_token", rf'("{Tokens.access_token}"\s+){{2}}"{Tokens.access_token}"')


def transaction():
    inside = re.escape("(TX)> ")
    asks("MULTI", "OK", inside)
    asks("GET access_token", "QUEUED", inside)
    asks("TTL access_token", "QUEUED", inside)
    asks("EXEC", rf'1\) "{Tokens.access_token}"\s+2\) \(integer\) \d+')


def missing():
    asks("GET nobody", r"\(nil\)")
    asks("TTL nobody", r"\(integer\) -2")


def refused():
    asks("SET access_token x", r"\(error\) READONLY [^\n]*")
    read()


def reconnect():
    restart()
    # The first command notices, the next one is sent on a new connection.
    asks("PING", "Error: Server closed the connection", "not connected> ")
    read()


def subscribe():
    types(f"SUBSCRIBE {CHANNEL} {KEYSPACE}")
    shows(rf'"subscribe"\s+2\) "{re.escape(KEYSPACE)}"\s+3\) \(integer\) 2')
    told = rf'"{CHANNEL}"\s+3\) "{rotate()}"'
    noticed = rf'"{re.escape(KEYSPACE)}"\s+3\) "set"'
    # In either order.
    shows(rf"(?s)(?=.*{told})(?=.*{noticed}).*\n")
    # Ctrl-C ends the subscription.
    os.write(terminal, b"\x03")


try:
    shows(PROMPT)
    for step in sys.argv[1:]:
        globals()[step]()
        taken(step)
finally:
    os.close(terminal)
