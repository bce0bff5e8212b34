"""What the benchmarks in Python share: processes that end with the benchmark, the boot listener's, turns, medians and output."""

import ctypes
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
BOOT_BENCH = HOME / "target/release/examples/boot-bench"


def build_boot_bench():
    run(["cargo", "build", "--quiet", "--release", "-p", "ferroboot-artifacts", "--example", "boot-bench"], cwd=HOME)


def make_certificate(folder):
    """`server.pem` and `server.key` of 127.0.0.1, which is its own authority."""
    run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=benchmark", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", folder / "server.key", "-out", folder / "server.pem"], stderr=subprocess.DEVNULL)


def start(command, **how):
    """Starts a program that is ended with this one, however this one ends."""
    told = lambda: ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    return subprocess.Popen(list(map(str, command)), preexec_fn=told, **how)


def run(command, **how):
    subprocess.run(list(map(str, command)), check=True, **how)


def until(met, seconds=10):
    end = time.monotonic() + seconds
    while not met():
        if time.monotonic() > end:
            sys.exit("a server was not ready in time")
        time.sleep(0.02)


def is_open(port):
    """Whether a TCP port over IPv4 listens."""
    with open("/proc/net/tcp", encoding="ascii") as sockets:
        return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A"
                   for line in sockets.readlines()[1:])


def in_turn(names, round_):
    names = list(names)
    first = round_ % len(names)
    return names[first:] + names[:first]


def medians(of):
    return {name: statistics.median(each) for name, each in of.items()}


def table(title, unit, values, form):
    print(f"{title}, {unit}: " + ", ".join(f"{name} {form.format(value)}" for name, value in values.items()), flush=True)


def say(what):
    print(what, file=sys.stderr, flush=True)
