"""redis-benchmark: a few thousand GETs, one at a time and in pipelines."""

import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../python"))
from harness import HOST, PORT, taken


def bench(*options):
    command = ["redis-benchmark", "-h", HOST, "-p", str(PORT), "-n", "5000", "-c", "10", "--csv",
               *options, "GET", "access_token"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=15, check=True)
    assert '"GET access_token"' in done.stdout, done.stdout + done.stderr
    # It prints an error's text if one is answered.
    assert "rror" not in done.stdout + done.stderr, done.stdout + done.stderr


def connect():
    bench()


def pipeline():
    bench("-P", "16")


for step in sys.argv[1:]:
    globals()[step]()
    taken(step)
