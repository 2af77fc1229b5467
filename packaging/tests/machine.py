"""A real Debian 12 with a real systemd: a tree of debootstrap's (cached in target/packaging/bookworm) in a
container of systemd-nspawn's, with loopback for a network; what is changed in it is forgotten."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys

from stage import APPID, NAME, PATIENCE, ROOT, SECRET, run, until

TREE = ROOT / "target/packaging/bookworm"
# A server's system, and what the README's reader has on it.
HOLDS = "systemd,systemd-sysv,dbus,sudo,curl,redis-tools,less"
ETC, STATE = pathlib.Path(f"/etc/{NAME}"), pathlib.Path(f"/var/lib/{NAME}")
SERVICE, SOCKETS = f"{NAME}.service", [f"{NAME}-http.socket", f"{NAME}-resp.socket"]


def plant():
    """The tree, if it is not there yet. Needs the network."""
    complete = TREE / "complete"
    if not complete.exists() or complete.read_text() != HOLDS:
        shutil.rmtree(TREE, ignore_errors=True)
        run("debootstrap", "--variant=minbase", f"--include={HOLDS}", "bookworm", TREE,
            "http://deb.debian.org/debian", stdout=sys.stderr)
        complete.write_text(HOLDS)


class Machine:
    """A container that has booted, in the network of this program."""

    def __init__(self, packages):
        self.nspawn = subprocess.Popen(
            ["systemd-nspawn", "--quiet", "--directory", TREE, "--volatile=overlay", f"--network-namespace-path=/proc/{os.getpid()}/ns/net",
             "--register=no", "--keep-unit", "--boot", "--console=pipe", f"--bind-ro={packages}:/packages",
             f"--machine=packages-{os.getpid()}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        self.leader = None
        try:
            until("the container to boot", self._has_booted)
        except BaseException:
            self.nspawn.kill()
            raise

    def _has_booted(self):
        # Its first child is not yet the one that becomes the container's init.
        children = pathlib.Path(f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children").read_text().split()
        self.leader = children[-1] if children else None
        return self.leader and self.try_("systemctl", "is-system-running").stdout.strip() in ("running", "degraded")

    def _inside(self, command, **variables):
        """What runs a command inside: its words, and how."""
        words = ["nsenter", "--target", self.leader, "--all", "--", *map(str, command)]
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8",
                       "DEBIAN_FRONTEND": "noninteractive", **variables}
        return words, {"env": environment, "cwd": "/", "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}

    def try_(self, *command, typed=""):
        """Runs a command, and types this into it; gives what it said and its exit code."""
        words, options = self._inside(command)
        return subprocess.run(words, text=True, input=typed, **options)

    def open(self, *command, **variables):
        """Starts a command that is talked with, in bytes."""
        words, options = self._inside(command, **variables)
        return subprocess.Popen(words, stdin=subprocess.PIPE, bufsize=0, **options)

    def run(self, *command, typed=""):
        done = self.try_(*command, typed=typed)
        if done.returncode:
            raise AssertionError(f"{command}: exit code {done.returncode}\n{done.stdout}")
        return done.stdout

    def sh(self, script):
        return self.run("sh", "-euc", script)

    def show(self, unit, name):
        return self.run("systemctl", "show", "--property", name, "--value", unit).strip()

    def pid(self):
        return self.show(SERVICE, "MainPID")

    def active(self, *units):
        return [self.show(unit, "ActiveState") for unit in units or (SERVICE, *SOCKETS)]

    def log(self):
        return self.run("journalctl", "--unit", SERVICE, "--output", "cat", "--no-pager")

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if error:
            print(self.try_("journalctl", "--no-pager", "--lines", "60").stdout, file=sys.stderr)
        os.kill(int(self.leader), signal.SIGRTMIN + 4)  # power off
        try:
            self.nspawn.wait(PATIENCE)
        finally:
            self.nspawn.kill()


def fill_in(machine):
    """What the operator does after the install; and WeChat is the stand-in."""
    machine.sh(f"""
        printf '%s\\n' {APPID} >{ETC}/credentials/appid
        printf '%s\\n' {SECRET} >{ETC}/credentials/secret
        sed -i 's|https://api.weixin.qq.com|http://127.0.0.1:12124|' {ETC}/config.ron
    """)
