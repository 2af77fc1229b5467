#!/usr/bin/env python3
"""The Debian package and the archive in a real Debian 12 with a real systemd, from the first install to
the purge: what is started and as whom, restarts and an upgrade under load that refuse nobody, a config
that the new version does not accept, a server that hangs, what is left behind.

What is changed in the container (machine.py) is forgotten."""

import pathlib
import re
import resource
import shutil
import subprocess
import tempfile

from machine import ETC, SERVICE, SOCKETS, STATE, Machine, fill_in, plant
from stage import (NAME, PATIENCE, ROOT, Load, expect, expect_in, has_a_network_of_its_own, in_a_network_of_its_own,
                   only, run, stand_in, token_over_http, token_over_resp, until)

NEXT = ROOT / "target/packaging/next"


def prepare():
    """What needs the network: the tree of Debian, and the same package under the next revision."""
    plant()
    shutil.rmtree(NEXT, ignore_errors=True)
    run(ROOT / "packaging/build", "--out", NEXT, "--only", "deb", "--deb-revision", "2", stderr=subprocess.STDOUT)


def serves(machine):
    secret = machine.run("cat", f"{STATE}/request_secret").strip()
    return secret, until("a token", lambda: token_over_http(secret))


def units_are_clean(machine):
    paths = [machine.show(unit, "FragmentPath") for unit in [SERVICE, *SOCKETS]]
    expect("the units are clean", machine.run("systemd-analyze", "verify", "--man=no", *paths), "")


def is_documented(machine, share, zsh):
    """What the program writes about itself is where the manual reader and the shells look."""
    page = machine.sh(f"gzip -dc {share}/man/man1/{NAME}.1.gz")
    expect_in("the manual page is there, with every command", '.SH "DOCTOR"', page)
    for place in [f"bash-completion/completions/{NAME}", f"{zsh}/_{NAME}", f"fish/vendor_completions.d/{NAME}.fish"]:
        expect_in(f"completions are in {place}", "doctor", machine.run("cat", f"{share}/{place}"))


def first_install(machine, deb):
    told = machine.run("dpkg", "--install", deb)
    expect_in("the first install says what to fill in", f"{ETC}/credentials", told)
    expect("nothing runs with a config that is not filled in", machine.active(), ["inactive"] * 3)
    expect("secrets are root's, the config is the service's to read", machine.run(
        "stat", "--format", "%a %U:%G %n", f"{ETC}/credentials", f"{ETC}/credentials/secret", f"{ETC}/config.ron"),
        f"700 root:root {ETC}/credentials\n600 root:root {ETC}/credentials/secret\n640 root:{NAME} {ETC}/config.ron\n")
    check = machine.try_(NAME, "check")
    expect_in("check says which file is empty", f"{ETC}/credentials/appid is empty", check.stdout)
    is_documented(machine, "/usr/share", "zsh/vendor-completions")
    units_are_clean(machine)
    fill_in(machine)
    machine.run("systemctl", "start", NAME)
    expect("started by one command, with its sockets", machine.active(), ["active"] * 3)
    secret, token = serves(machine)
    expect("RESP answers with the same token", token_over_resp(), token)
    return secret, token


def confined(machine):
    status = dict(re.findall(r"(\w+):\s*(.*)", machine.run("cat", f"/proc/{machine.pid()}/status")))
    user = machine.run("id", "--user", NAME).strip()
    expect("it runs as its user", status["Uid"].split(), [user] * 4)
    expect("without any capability, and with a filter of system calls",
           (status["CapBnd"], status["CapEff"], status["NoNewPrivs"], status["Seccomp"]), ("0" * 16, "0" * 16, "1", "2"))
    score = machine.run("systemd-analyze", "security", "--no-pager", SERVICE)
    score = float(re.search(r"Overall exposure level for [^:]*: ([\d.]+)", score)[1])
    expect(f"its exposure, as systemd sees it, is {score}: below 2", score < 2, True)
    warnings = [line for line in machine.log().splitlines() if "WARN" in line or "ERROR" in line]
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 32768:
        # This machine has less than the unit asks for, and gives no more.
        warnings = [line for line in warnings if "LimitNOFILE" not in line]
    expect("the log has no warning", warnings, [])


def reload(machine):
    expect_in("systemctl status says what is served", "serving 2 sources; HTTP on 127.0.0.1:12123, RESP on 127.0.0.1:6379",
              machine.show(SERVICE, "StatusText"))
    pid = machine.pid()
    machine.run("systemctl", "reload", NAME)
    until("the reload", lambda: "config reloaded" in machine.log())
    expect("a reload keeps the process, ready", (machine.pid(), machine.active(SERVICE)), (pid, ["active"]))
    machine.sh(f"cp {ETC}/config.ron /tmp/good; echo '(nonsense: 1)' >{ETC}/config.ron")
    machine.run("systemctl", "reload", NAME)
    until("the mistake", lambda: "not reloaded, the config has mistakes" in machine.show(SERVICE, "StatusText"))
    print("  ok  a config with mistakes is seen in systemctl status")
    machine.sh(f"cat /tmp/good >{ETC}/config.ron")
    machine.run("systemctl", "reload", NAME)
    until("the config as it was", lambda: "mistakes" not in machine.show(SERVICE, "StatusText"))


def under_load(machine, secret, token, what, replace):
    before = machine.pid()
    with Load(secret, token) as load:
        replace()
        load.more()
    expect(f"{what} under load: another process, and of {load.answered} requests none failed",
           (machine.pid() != before, load.failures[:3]), (True, []))


def a_config_that_is_not_accepted(machine, secret, deb):
    pid = machine.pid()
    machine.sh(f"cp {ETC}/config.ron /tmp/good; sed -i 's/http: (bind/http: (bnid/' {ETC}/config.ron")
    told = machine.run("dpkg", "--install", "--force-confold", deb)
    expect_in("an upgrade says that the config is not accepted", "does not accept", told)
    expect("and lets the version before it run", (machine.pid(), bool(token_over_http(secret))), (pid, True))
    machine.sh(f"cat /tmp/good >{ETC}/config.ron")


def hangs_and_crashes(machine, secret):
    machine.sh(f"mkdir -p /run/systemd/system/{SERVICE}.d; "
               f"printf '[Service]\\nWatchdogSec=2s\\n' >/run/systemd/system/{SERVICE}.d/watchdog.conf")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", NAME)
    for what, number in [("hangs", "STOP"), ("is killed", "KILL")]:
        pid = machine.pid()
        machine.sh(f"kill -{number} {pid}")
        until("another process", lambda: machine.pid() not in (pid, "0") and machine.active(SERVICE) == ["active"])
        until("it to serve", lambda: token_over_http(secret))
        print(f"  ok  a server that {what} is replaced")
    machine.sh(f"rm -r /run/systemd/system/{SERVICE}.d; systemctl daemon-reload")


def starts_at_a_connection(machine, secret, token):
    machine.run("systemctl", "stop", SERVICE)
    expect("the sockets outlive the service", machine.active(), ["inactive", "active", "active"])
    expect("a connection starts it", token_over_http(secret, timeout=PATIENCE), token)


def another_address(machine, secret, token):
    """As docs/operations.md says."""
    [socket, _] = SOCKETS
    edit, again = f"/etc/systemd/system/{socket}.d", f"systemctl stop {socket} {NAME}; systemctl start {NAME}"
    machine.sh(f"mkdir {edit}; printf '[Socket]\\nListenStream=\\nListenStream=127.0.0.1:12999\\n' >{edit}/override.conf; "
               "systemctl daemon-reload")
    machine.sh(f"sed -i 's/127.0.0.1:12123/127.0.0.1:12999/' {ETC}/config.ron; {again}")
    expect("an address is changed in two places", token_over_http(secret, port=12999), token)
    machine.sh(f"sed -i 's/127.0.0.1:12999/127.0.0.1:12998/' {ETC}/config.ron")
    machine.try_("systemctl", "restart", NAME)
    until("the complaint", lambda: "but http.bind is 127.0.0.1:12998; change ListenStream=" in machine.log())
    print("  ok  in one place alone it is said, and nothing starts:", machine.show(SERVICE, "ExecMainStatus"))
    machine.sh(f"rm -r {edit}; sed -i 's/127.0.0.1:12998/127.0.0.1:12123/' {ETC}/config.ron; systemctl daemon-reload; "
               f"{again}")
    expect("and back", token_over_http(secret), token)
    machine.run("systemctl", "mask", "--runtime", "--now", *SOCKETS)
    machine.run("systemctl", "restart", NAME)
    expect("without its sockets it listens by itself", (token_over_http(secret), token_over_resp()), (token, token))
    machine.run("systemctl", "unmask", "--runtime", *SOCKETS)
    machine.run("systemctl", "restart", NAME)


def nobody_listens():
    for ask in [lambda: token_over_http(""), token_over_resp]:
        try:
            ask()
        except ConnectionRefusedError:
            continue
        raise AssertionError("somebody listens")
    return True


def gone(machine):
    places = [STATE, ETC, f"/etc/systemd/system/multi-user.target.wants/{SERVICE}"]
    left = [str(place) for place in places if machine.try_("test", "-e", place).returncode == 0]
    expect("nothing is left: no file, no user, no unit",
           (left, machine.try_("id", NAME).returncode, machine.try_("systemctl", "list-unit-files", f"{NAME}*").stdout.count(NAME)),
           ([], 1, 0))


def the_package(machine, first, second):
    secret, token = first_install(machine, first)
    confined(machine)
    reload(machine)
    for _ in range(3):
        under_load(machine, secret, token, "a restart", lambda: machine.run("systemctl", "restart", NAME))
    under_load(machine, secret, token, "an upgrade", lambda: machine.run("dpkg", "--install", second))
    a_config_that_is_not_accepted(machine, secret, first)
    another_address(machine, secret, token)
    starts_at_a_connection(machine, secret, token)
    hangs_and_crashes(machine, secret)
    machine.run("dpkg", "--remove", NAME)
    expect("a removal stops all of it", nobody_listens(), True)
    machine.run("dpkg", "--install", first)
    expect("an install with a config starts it, sockets and all", machine.active(), ["active"] * 3)
    expect("with the tokens that were there", until("a token", lambda: token_over_http(secret)), token)
    machine.run("dpkg", "--purge", NAME)
    expect("a purge stops all of it", nobody_listens(), True)
    gone(machine)


def the_archive(machine, archive):
    machine.sh(f"mkdir /tmp/a; tar -C /tmp/a --strip-components=1 -xf /packages/{archive.name}")
    told = machine.run("/tmp/a/install.sh")
    expect_in("install.sh says what to fill in", f"{ETC}/credentials", told)
    expect("and starts nothing yet", machine.active(), ["inactive"] * 3)
    fill_in(machine)
    expect_in("once more, and it runs", f"{NAME} runs", machine.run("/tmp/a/install.sh"))
    expect("with its sockets", machine.active(), ["active"] * 3)
    units_are_clean(machine)
    is_documented(machine, "/usr/local/share", "zsh/site-functions")
    secret, token = serves(machine)
    under_load(machine, secret, token, "another install.sh", lambda: machine.run("/tmp/a/install.sh"))
    machine.sh(f"cp /tmp/a/{NAME} /tmp/kept; echo >>/tmp/a/{NAME}")
    pid = machine.pid()
    tampered = machine.try_("/tmp/a/install.sh")
    expect("a file that is not the archive's: nothing is touched", (tampered.returncode, machine.pid()), (1, pid))
    machine.sh(f"cat /tmp/kept >/tmp/a/{NAME}")
    machine.run("/tmp/a/install.sh", "uninstall")
    expect("it is uninstalled", nobody_listens(), True)
    expect("config and tokens stay", machine.try_("test", "-e", f"{STATE}/request_secret").returncode, 0)
    machine.run("/tmp/a/install.sh", "purge")
    gone(machine)


def main():
    if not has_a_network_of_its_own():
        prepare()
    in_a_network_of_its_own()
    first, archive, binary = only("*-1_amd64.deb"), only("*-x86_64-linux.tar.gz"), only("*-x86_64-linux-static")
    [second] = NEXT.glob("*.deb")
    with tempfile.TemporaryDirectory() as scratch:
        packages = pathlib.Path(scratch)
        for package in [first, second, archive]:
            shutil.copy(package, packages)
        with stand_in(binary), Machine(packages) as machine:
            the_package(machine, f"/packages/{first.name}", f"/packages/{second.name}")
            the_archive(machine, archive)


main()
