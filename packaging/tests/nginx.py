#!/usr/bin/env python3
"""The example configs: a request passes through a real nginx with TLS, the server sees who asked and
not nginx, no key is in nginx' log, and an event goes on before the next one is there. Caddy's file is
validated, where there is a caddy."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import threading

from stage import (APPID, ROOT, SECRET, Program, expect, expect_in, in_a_network_of_its_own, run, stand_in,
                   token_over_http, until)

NAME = "tokens.example.com"
KEY, SHOP = "a-request-secret-of-the-test", "a-key-of-the-shop-test"
# Where the shop's server is.
SHOP_ADDRESS = "127.0.0.9"


def config(work):
    return f"""(
    http: (bind: "127.0.0.1:12123", trusted_proxies: ["127.0.0.1"]),
    resp: (enabled: false),
    store: (path: "{work}/store"),
    request_secret: "{KEY}",
    clients: {{"shop": (keys: ["{SHOP}"], addresses: ["{SHOP_ADDRESS}"])}},
    token_sources: {{"access_token": (
        url: "http://127.0.0.1:12124/cgi-bin/token",
        args: {{"grant_type": "client_credential", "appid": "{APPID}", "secret": "{SECRET}"}},
    )}},
)"""


def nginx(work):
    """A real nginx with the example as it is, but for the paths."""
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={NAME}",
        "-addext", f"subjectAltName=DNS:{NAME}", "-keyout", work / "privkey.pem", "-out", work / "fullchain.pem",
        stderr=subprocess.DEVNULL)
    example = (ROOT / "packaging/examples/nginx.conf").read_text()
    for there, here in [("/etc/ssl/tokens.example.com/", f"{work}/"), ("/var/log/nginx/", f"{work}/")]:
        if there not in example:
            raise AssertionError(f"no {there} in the example")
        example = example.replace(there, here)
    (work / "example.conf").write_text(example)
    (work / "nginx.conf").write_text(f"""
daemon off; pid {work}/nginx.pid; error_log stderr notice; user root;
events {{ }}
http {{ include {work}/example.conf; client_body_temp_path {work}/body; proxy_temp_path {work}/proxy;
fastcgi_temp_path {work}/f; uwsgi_temp_path {work}/u; scgi_temp_path {work}/s; }}
""")
    run("nginx", "-t", "-q", "-c", work / "nginx.conf", "-e", "stderr")
    return Program("nginx", "-c", work / "nginx.conf", "-e", "stderr", ready="start worker process")


def ask(work, path, *arguments, source="127.0.0.1"):
    """The answer through nginx, to who connects from this address."""
    return run("curl", "--silent", "--show-error", "--max-time", "20", "--cacert", work / "fullchain.pem", "--resolve",
               f"{NAME}:443:127.0.0.1", "--interface", source, *arguments, f"https://{NAME}{path}")


def passes_through(work, binary):
    (work / "config.ron").write_text(config(work))
    (work / "config.ron").chmod(0o600)
    with stand_in(binary), Program(binary, "--config", work / "config.ron", ready="serving") as server, nginx(work):
        token = until("a token", lambda: token_over_http(KEY))
        ours = f"/wechat/token?type=access_token&secret={KEY}"
        expect("a request passes through", json.loads(ask(work, ours)).get("access_token"), token)
        shops = f"/wechat/token?type=access_token&secret={SHOP}"
        answer = json.loads(ask(work, shops, source=SHOP_ADDRESS))
        expect("the shop is let in from its address", answer.get("access_token"), token)
        refused = '{"error": "invalid request"}'
        expect("and from no other", ask(work, shops, source="127.0.0.8").strip(), refused)
        forged = ["--header", f"X-Forwarded-For: {SHOP_ADDRESS}"]
        expect("nor by a header of its own", ask(work, shops, *forged, source="127.0.0.8").strip(), refused)
        header = ask(work, "/wechat/token?type=access_token", "--header", f"Authorization: Bearer {KEY}")
        expect("a key in the header passes through", json.loads(header).get("access_token"), token)
        expect("the log of the server has the client's address", any("127.0.0.8" in line for line in server.log), True)
        log = (work / "wechat-token-server.log").read_text()
        expect_in("the log of nginx has the path", '"GET /wechat/token" 200', log)
        expect("and no key", (KEY in log, SHOP in log), (False, False))


def events_go_on_at_once(work):
    """Something that sends an event, and the next one only when the first has arrived."""
    listener = socket.create_server(("127.0.0.1", 12123))
    arrived = threading.Event()

    def serve():
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: first\n\n")
        if arrived.wait(20):
            connection.sendall(b"data: second\n\n")
        connection.close()

    threading.Thread(target=serve, daemon=True).start()
    with nginx(work):
        client = subprocess.Popen(
            ["curl", "--silent", "--no-buffer", "--max-time", "25", "--cacert", work / "fullchain.pem", "--resolve",
             f"{NAME}:443:127.0.0.1", f"https://{NAME}/v1/events"], stdout=subprocess.PIPE, text=True)
        expect("the first event goes on before the second", client.stdout.readline(), "data: first\n")
        arrived.set()
        expect_in("and then the second", "data: second", client.stdout.read())
        client.wait(30)
    listener.close()


def main():
    in_a_network_of_its_own()
    binary = pathlib.Path(os.environ.get("BINARY", ROOT / "target/release/wechat-token-server"))
    with tempfile.TemporaryDirectory() as scratch:
        work = pathlib.Path(scratch)
        passes_through(work, binary)
        events_go_on_at_once(work)
    if shutil.which("caddy"):
        caddyfile = ROOT / "packaging/examples/Caddyfile"
        run("caddy", "validate", "--adapter", "caddyfile", "--config", caddyfile, stderr=subprocess.STDOUT)
        print("  ok  caddy accepts its example")
    else:
        print("  --  no caddy here: its example is not validated")


main()
