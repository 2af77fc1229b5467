"""What the tests of the packages share: a network of their own, a stand-in for WeChat, clients that
speak just enough of each protocol, load that counts what goes wrong."""

import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = pathlib.Path(os.environ.get("PACKAGES", ROOT / "target/packages"))
NAME = "wechat-token-server"

# How long anything may take that is waited for: far longer than it does.
PATIENCE = 60

# Who the stand-in for WeChat knows (src/sandbox/account.rs).
APPID = "wxsandbox0000000"
SECRET = "sandboxsecret0000000000000000000"


def only(pattern):
    """The one package of this name."""
    found = sorted(PACKAGES.glob(pattern))
    if len(found) != 1:
        sys.exit(f"{PACKAGES}/{pattern}: {len(found)} files instead of one; run packaging/build")
    return found[0]


def has_a_network_of_its_own():
    return os.environ.get("OWN_NETWORK") == "yes"


def in_a_network_of_its_own():
    """Runs this program again where there is loopback and nothing else: no port is taken, and nothing
    can leave."""
    if not has_a_network_of_its_own():
        os.environ["OWN_NETWORK"] = "yes"
        os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv])
    run("ip", "link", "set", "lo", "up")


def run(*command, **options):
    """Runs a command that must not fail, and gives its output."""
    options = {"check": True, "text": True, "stdout": subprocess.PIPE, **options}
    try:
        return subprocess.run([str(word) for word in command], **options).stdout
    except subprocess.CalledProcessError as error:
        sys.exit(f"failed: {error}\n{error.stdout or ''}{error.stderr or ''}")


def until(what, happens):
    """Waits until `happens()` gives something, and gives that."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if outcome := happens():
                return outcome
        except (OSError, http.client.HTTPException):
            pass
        if time.monotonic() > deadline:
            raise AssertionError(f"waited too long for {what}")
        time.sleep(0.02)


def expect(what, found, wanted):
    if found != wanted:
        raise AssertionError(f"{what}: {found!r} instead of {wanted!r}")
    print(f"  ok  {what}")


def expect_in(what, part, whole):
    if part not in whole:
        raise AssertionError(f"{what}: no {part!r} in {whole!r}")
    print(f"  ok  {what}")


class Program:
    """A child that is ended with the test; its log is shown when the test fails."""

    def __init__(self, *command, ready=None, **options):
        self.log = []
        self.child = subprocess.Popen(
            [str(word) for word in command], text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True, **options)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        if ready:
            until(f"{command[0]} to say {ready!r}", lambda: self._said(ready))

    def _read(self):
        for line in self.child.stdout:
            self.log.append(line)

    def _said(self, part):
        if self.child.poll() is not None:
            self.reader.join()
            raise AssertionError("it ended:\n" + "".join(self.log))
        return any(part in line for line in self.log)

    def stop(self):
        """Ends it as an operator would; its exit code."""
        if self.child.poll() is None:
            self.child.terminate()
        try:
            return self.child.wait(PATIENCE)
        finally:
            try: # whatever it has started and left behind
                os.killpg(self.child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.reader.join()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if error:
            print(f"--- {self.child.args}\n{''.join(self.log)}---", file=sys.stderr)
        self.stop()


def stand_in(binary, port=12124):
    """The `sandbox` of the program: what is used of it is the stand-in for WeChat."""
    return Program(binary, "sandbox", "--lifetime", "2h", "--upstream", f"127.0.0.1:{port}",
                   "--http", "127.0.0.1:0", "--resp", "127.0.0.1:0", ready="Ctrl-C stops it")


def http_get(path, host="127.0.0.1", port=12123, timeout=10):
    """The body of a GET on a connection of its own."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def token_over_http(secret, source="access_token", **where):
    return json.loads(http_get(f"/wechat/token?type={source}&secret={secret}", **where)).get(source)


def token_over_resp(source="access_token", password=None, port=6379, timeout=10):
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        wire = connection.makefile("rwb")
        if password:
            wire.write(f"AUTH {password}\r\n".encode())
        wire.write(f"GET {source}\r\n".encode())
        wire.flush()
        if password and (answer := wire.readline()) != b"+OK\r\n":
            raise AssertionError(answer)
        length = re.fullmatch(rb"\$(\d+)\r\n", head := wire.readline())
        if not length:
            raise ConnectionError(f"{head!r} instead of a token")
        return wire.read(int(length[1])).decode()


class Load:
    """Clients that ask for a token again and again, each time on a new connection, and count what was
    not answered with the right one."""

    CLIENTS = 8

    def __init__(self, secret, value):
        self.value, self.over = value, threading.Event()
        self.answered, self.failures = 0, []
        asks = [lambda: token_over_http(secret), token_over_resp]
        self.threads = [threading.Thread(target=self._ask, args=(asks[at % 2],), daemon=True)
                        for at in range(self.CLIENTS)]

    def _ask(self, ask):
        while not self.over.is_set():
            try:
                value = ask()
                if value != self.value:
                    raise ValueError(f"another token: {value}")
                self.answered += 1
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failures.append(f"{ask.__name__}: {error!r}")

    def more(self, least=200):
        goal = self.answered + least
        until("the load", lambda: self.answered >= goal or self.failures)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        self.more()
        return self

    def __exit__(self, kind, error, trace):
        if not error:
            self.more()
        self.over.set()
        for thread in self.threads:
            thread.join()
