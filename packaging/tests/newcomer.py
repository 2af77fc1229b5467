#!/usr/bin/env python3
"""Somebody new with the package and the README alone, as a user who may sudo, on a Debian that has never seen
it: every command of "Install it, in five minutes" is taken from the README, in both languages, and run as it stands
there. Only the account is the stand-in's, and with it the host in the config. Then the page, in a real browser.

What it takes is measured: the commands by the clock, and the person by what each command takes to be read, copied
and looked at.

And on another machine the blocks are pasted into a terminal, each at once, by somebody who is in a hurry."""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from machine import ETC, STATE, Machine, plant
from stage import (APPID, PATIENCE, ROOT, SECRET, expect, expect_in, has_a_network_of_its_own, in_a_network_of_its_own,
                   only, run, stand_in, until)

# Seconds of a person for each command: to read it, copy it and look at what it says.
A_COMMAND = 15
FIVE_MINUTES = 300
# A token as HTTP answers with it.
TOKEN = re.compile(r'"access_token": ?"([^"]+)"')
READMES = {"README.md": "## Install it, in five minutes", "README.zh-CN.md": "## 五分钟安装"}


def blocks(readme, heading):
    """The blocks of commands below a heading, up to the next, with the stand-in's account in its place."""
    section = (ROOT / readme).read_text().split(heading + "\n", 1)[1].split("\n## ", 1)[0]
    return [block.replace("wx…", APPID) for block in re.findall(r"```sh[^\n]*\n(.*?)\n```", section, re.S)]


class Person:
    """A user who may sudo, where the package was downloaded to; counts what it does."""

    def __init__(self, machine):
        self.machine, self.machine_seconds, self.typed = machine, 0, 0
        machine.sh("useradd --create-home --shell /bin/bash newcomer; "
                   "echo 'newcomer ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/newcomer")

    def has_the_stand_in_for_wechat(self):
        """With an account nothing is to be changed here."""
        self.machine.sh(f"sed -i 's|https://api.weixin.qq.com|http://127.0.0.1:12124|' {ETC}/config.ron")

    def does(self, command, typed=""):
        start = time.monotonic()
        said = self.machine.run("runuser", "-u", "newcomer", "--", "bash", "-c", f"cd /packages && {command}", typed=typed)
        self.machine_seconds += time.monotonic() - start
        self.typed += 1
        return said

    def seconds(self):
        return self.machine_seconds + self.typed * A_COMMAND


class Terminal:
    """A terminal with the person's shell in it, which says when all that was pasted is done, and what of it has failed."""

    DONE, FAILED = "[all is done]", "[it has failed"
    SHELL = f"""stty rows 24 columns 80; cd /packages; PS1='$ '
        PROMPT_COMMAND='echo "{DONE}"'; trap 'echo "{FAILED} with $?: $BASH_COMMAND]"' ERR
        """

    def __init__(self, machine):
        machine.run("tee", "/home/newcomer/.bashrc", typed=self.SHELL)
        self.child = machine.open("runuser", "-u", "newcomer", "--", "script", "--quiet", "--flush", "--command",
                                  "bash -i", "/dev/null", TERM="xterm", HOME="/home/newcomer")
        self.shown, self.pasted = "", 0
        threading.Thread(target=self._read, daemon=True).start()
        self._wait()

    def _read(self):
        while piece := self.child.stdout.read(4096):
            self.shown += piece.decode(errors="replace")

    def _until(self, what, happens):
        try:
            until(what, happens)
        except AssertionError:
            print(self.shown, file=sys.stderr)
            raise

    def _wait(self):
        self._until("the shell", lambda: self.shown.count(self.DONE) > self.pasted)

    def paste(self, block, asks=None, typed=""):
        """Pastes as terminals do today (bracketed); answers what is asked."""
        self.pasted += 1
        self.child.stdin.write(f"\x1b[200~{block}\x1b[201~\r".encode())
        if asks:
            self._until(asks, lambda: self.shown.endswith(asks))
            self.child.stdin.write(f"{typed}\r".encode())
        self._wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.stdin.close() # the person hangs up
        try:
            self.child.wait(PATIENCE)
        finally:
            self.child.kill()


def does_what_the_readme_says(person, lines):
    said = {}
    for line in lines:
        said[line] = person.does(line, typed=SECRET + "\n" if line.startswith("read ") else "")
        if line.startswith("sudo apt install"):
            person.has_the_stand_in_for_wechat()
    return lambda start: next(text for line, text in said.items() if line.startswith(start))


def looks_at_the_page(key):
    start = time.monotonic()
    subprocess.run(["node", ROOT / "packaging/tests/newcomer.mjs", "http://127.0.0.1:12123"], input=key, text=True,
                   check=True)
    return time.monotonic() - start


def step_by_step(packages, readme, heading):
    with Machine(packages) as machine:
        person = Person(machine)
        said = does_what_the_readme_says(person, "\n".join(blocks(readme, heading)).splitlines())
        expect_in("systemctl says that it serves", "serving 2 sources", said("systemctl status"))
        status = said("sudo wechat-token-server status")
        expect("status shows both sources live", [name in status for name in ("access_token", "ticket")], [True] * 2)
        expect_in("doctor has looked at the account", "redentials", said("sudo wechat-token-server doctor"))
        [over_http] = TOKEN.findall(said('curl "'))
        expect("redis-cli gets the token that curl gets", said("redis-cli").strip(), over_http)
        key = machine.run("cat", f"{STATE}/request_secret").strip()
        expect("nothing in the store has become root's", machine.run("find", STATE, "-user", "root"), "")
        page = looks_at_the_page(key) + 2 * A_COMMAND  # the address, and the key
        total = person.seconds() + page
        print(f"  {person.typed} commands ran for {person.machine_seconds:.1f} s; with {A_COMMAND} s of a person for each, "
              f"and the page, {total:.0f} s")
        expect("five minutes are enough", total < FIVE_MINUTES, True)


def in_a_hurry(packages, readme, heading):
    install, start = blocks(readme, heading)
    with Machine(packages) as machine:
        person = Person(machine)
        with Terminal(machine) as terminal:
            terminal.paste(install, asks="AppSecret: ", typed=SECRET)
            person.has_the_stand_in_for_wechat()
            terminal.paste(start)
        expect("pasted at once, no command fails",
               re.findall(f"{re.escape(Terminal.FAILED)} with \\d+.*", terminal.shown), [])
        [over_http] = TOKEN.findall(terminal.shown)
        expect("and the token is shown by curl and by redis-cli", terminal.shown.count(over_http), 2)
        expect("the secret was not shown", SECRET in terminal.shown, False)


def main():
    if not has_a_network_of_its_own():
        plant()
        run(ROOT / "tests/ui/run", "--install")
    in_a_network_of_its_own()
    with tempfile.TemporaryDirectory() as scratch, stand_in(only("*-x86_64-linux-static")):
        packages = pathlib.Path(scratch)
        # As a download is: readable for all, and for apt's own user.
        packages.chmod(0o755)
        shutil.copy(only("*-1_amd64.deb"), packages)
        for readme, heading in READMES.items():
            print(f"  {readme}")
            step_by_step(packages, readme, heading)
            in_a_hurry(packages, readme, heading)


main()
