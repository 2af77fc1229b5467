#!/usr/bin/env python3
"""The static binary in an empty root: exactly the files that the Dockerfile copies, as the user that
it names. There it resolves a host name through DNS, fetches, serves, stops, and serves again from its
volume without the upstream. No Docker engine is needed; what it would do with the Dockerfile is done
by hand."""

import json
import os
import pathlib
import re
import shutil
import socket
import tempfile
import threading

from stage import (APPID, ROOT, SECRET, Program, expect, in_a_network_of_its_own, only, run, stand_in,
                   token_over_http, token_over_resp, until)

HOST = "api.wechat.test"
KEY = "a-request-secret-of-the-test"


class Dns:
    """A name server that knows one name, and how often it was asked for it."""

    def __init__(self, address="127.0.0.53"):
        self.asked = 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, 53))
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self):
        wanted = b"".join(bytes([len(label)]) + label.encode() for label in HOST.split(".")) + b"\0"
        while True:
            query, client = self.socket.recvfrom(512)
            end = query.index(b"\0", 12) + 5
            question = query[12:end]
            known = question[:-4].lower() == wanted
            is_a = known and question[-4:-2] == b"\0\1"
            self.asked += known
            flags = b"\x81\x80" if known else b"\x81\x83"  # or: there is no such name
            reply = query[:2] + flags + bytes([0, 1, 0, is_a, 0, 0, 0, 0]) + question
            if is_a:
                reply += b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton("127.0.0.1")
            self.socket.sendto(reply, client)


class Image:
    """What `docker build` would make of the Dockerfile. Knows the instructions that are used, and
    fails on others."""

    def __init__(self, root):
        self.root, self.environment = root, {}
        for line in (ROOT / "packaging/docker/Dockerfile").read_text().splitlines():
            if not line or line.startswith("#"):
                continue
            match line.split(" ", 1):
                case ["FROM", "scratch"]:
                    pass
                case ["COPY", what]:
                    self._copy(*re.fullmatch(r"(?:--chown=(\d+):(\d+) )?(\S+) (\S+)", what).groups())
                case ["USER", user]:
                    self.user = user
                case ["VOLUME", volume]:
                    self.volume = volume
                case ["EXPOSE", _]:
                    pass
                case ["ENV", setting]:
                    self.environment.update([setting.split("=", 1)])
                case ["ENTRYPOINT", words]:
                    self.entrypoint = json.loads(words)
                case other:
                    raise AssertionError(f"an instruction that this test does not know: {other}")

    def path(self, inside):
        return self.root / inside.lstrip("/")

    def _copy(self, user, group, pattern, to):
        self._is_in_the_context(pattern)
        binary = pattern.startswith("target/packages/")
        source = only(pathlib.PurePath(pattern).name) if binary else ROOT / pattern
        to = self.path(to)
        to.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, to)
        if user:
            for path in [to, *to.rglob("*")]:
                os.chown(path, int(user), int(group))

    @staticmethod
    def _is_in_the_context(pattern):
        allowed = (ROOT / ".dockerignore").read_text().splitlines()
        if f"!{pattern}" not in allowed:
            raise AssertionError(f"{pattern} is not let through by .dockerignore")

    def command(self, *arguments):
        return [shutil.which("chroot"), f"--userspec={self.user}", self.root, *self.entrypoint, *arguments]

    def start(self, ready):
        return Program(*self.command(), ready=ready, env=self.environment)


def main():
    in_a_network_of_its_own()
    binary = only("*-x86_64-linux-static")
    headers = run("readelf", "--program-headers", "--dynamic", binary)
    expect("no interpreter and no library is asked for", ("INTERP" in headers, "NEEDED" in headers), (False, False))
    with tempfile.TemporaryDirectory() as scratch:
        root = pathlib.Path(scratch)
        root.chmod(0o755)
        image = Image(root)
        # What a container gets besides: the resolver's config, and the secrets.
        (root / "etc/resolv.conf").write_text("nameserver 127.0.0.53\n")
        secrets = image.path(image.environment["CREDENTIALS_DIRECTORY"])
        secrets.mkdir(parents=True)
        for name, value in [("appid", APPID), ("secret", SECRET), ("request_secret", KEY)]:
            (secrets / name).write_text(value + "\n")
        config = image.path("/etc/wechat-token-server/config.ron")
        text = config.read_text()
        run(*image.command("check"), env=image.environment)
        print("  ok  the config is accepted as it is")
        config.write_text(text.replace("https://api.weixin.qq.com", f"http://{HOST}:12124"))
        before = {path for path in root.rglob("*") if path.is_file()}
        dns = Dns()
        with stand_in(binary) as upstream:
            with image.start("serving") as server:
                token = until("a token", lambda: token_over_http(KEY))
                ticket = until("a ticket", lambda: token_over_http(KEY, "ticket"))
                expect("RESP answers with the same token", token_over_resp(password=KEY), token)
                expect("the host's name was asked for", dns.asked > 0, True)
                expect("it ends in order", server.stop(), 0)
            upstream.stop()
        with image.start("serving"):
            found = (token_over_http(KEY), token_over_http(KEY, "ticket"))
            expect("the volume holds the tokens, without the upstream", found, (token, ticket))
        written = {path for path in root.rglob("*") if path.is_file()} - before
        inside = all(path.is_relative_to(image.path(image.volume)) for path in written)
        expect("nothing is written outside the volume", (bool(written), inside), (True, True))


main()
