#!/usr/bin/env python3
"""Somebody new with the package and the README alone, as a user who may sudo, on a Debian that has never seen
it: every command of "Install it, in five minutes" is taken from the README, in both languages, and run as it stands
there. Only the account is the stand-in's, and with it the host in the config. Then the page, in a real browser.

What it takes is measured: the commands by the clock, and the person by what each command takes to be read, copied
and looked at."""

import pathlib
import re
import shutil
import subprocess
import tempfile
import time

from machine import ETC, STATE, Machine, plant
from stage import (APPID, ROOT, SECRET, expect, expect_in, has_a_network_of_its_own, in_a_network_of_its_own, only,
                   run, stand_in, until)

# Seconds of a person for each command: to read it, copy it and look at what it says.
A_COMMAND = 15
FIVE_MINUTES = 300
READMES = {"README.md": "## Install it, in five minutes", "README.zh-CN.md": "## 五分钟安装"}


def commands(readme, heading):
    """The commands of the first block below a heading."""
    section = (ROOT / readme).read_text().split(heading + "\n", 1)[1]
    return re.search(r"```sh[^\n]*\n(.*?)```", section, re.S)[1].splitlines()


class Person:
    """A user who may sudo, where the package was downloaded to; counts what it does."""

    def __init__(self, machine):
        self.machine, self.machine_seconds, self.typed = machine, 0, 0
        machine.sh("useradd --create-home --shell /bin/bash newcomer; "
                   "echo 'newcomer ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/newcomer")

    def does(self, command, typed=""):
        start = time.monotonic()
        said = self.machine.run("runuser", "-u", "newcomer", "--", "bash", "-c", f"cd /packages && {command}", typed=typed)
        self.machine_seconds += time.monotonic() - start
        self.typed += 1
        return said

    def seconds(self):
        return self.machine_seconds + self.typed * A_COMMAND


def does_what_the_readme_says(person, lines):
    said = {}
    for line in lines:
        if line == "sudo wechat-token-server status":
            # A person is slower than the first fetch.
            until("the first tokens", lambda: person.machine.try_("wechat-token-server", "status").returncode == 0)
        said[line] = person.does(line.replace("wx…", APPID), typed=SECRET + "\n" if line.startswith("read ") else "")
        if line.startswith("sudo apt install"):
            # The stand-in for WeChat; with an account nothing is to be changed here.
            person.does(f"sudo sed -i 's|https://api.weixin.qq.com|http://127.0.0.1:12124|' {ETC}/config.ron")
    return lambda start: next(text for line, text in said.items() if line.startswith(start))


def looks_at_the_page(key):
    start = time.monotonic()
    subprocess.run(["node", ROOT / "packaging/tests/newcomer.mjs", "http://127.0.0.1:12123"], input=key, text=True,
                   check=True)
    return time.monotonic() - start


def newcomer(packages, readme, heading):
    print(f"  {readme}")
    with Machine(packages) as machine:
        person = Person(machine)
        said = does_what_the_readme_says(person, commands(readme, heading))
        expect_in("systemctl says that it serves", "serving 2 sources", said("systemctl status"))
        status = said("sudo wechat-token-server status")
        expect("status shows both sources live", [name in status for name in ("access_token", "ticket")], [True] * 2)
        expect_in("doctor has looked at the account", "redentials", said("sudo wechat-token-server doctor"))
        [over_http] = re.findall(r'"access_token": ?"([^"]+)"', said("curl"))
        expect("redis-cli gets the token that curl gets", said("redis-cli").strip(), over_http)
        key = machine.run("cat", f"{STATE}/request_secret").strip()
        expect("nothing in the store has become root's", machine.run("find", STATE, "-user", "root"), "")
        page = looks_at_the_page(key) + 2 * A_COMMAND  # the address, and the key
        total = person.seconds() + page
        print(f"  {person.typed} commands ran for {person.machine_seconds:.1f} s; with {A_COMMAND} s of a person for each, "
              f"and the page, {total:.0f} s")
        expect("five minutes are enough", total < FIVE_MINUTES, True)


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
            newcomer(packages, readme, heading)


main()
