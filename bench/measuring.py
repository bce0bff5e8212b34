"""What the benchmarks in Python share: processes that end with the benchmark, the boot listener's, turns, medians and output."""

import ctypes
import hashlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
BOOT_BENCH = HOME / "target/release/examples/boot-bench"
STUB = Path("/usr/lib/systemd/boot/efi/linuxx64.efi.stub")


def build_boot_bench():
    run(["cargo", "build", "--quiet", "--release", "-p", "ferroboot-artifacts", "--example", "boot-bench"], cwd=HOME)


def install(tools):
    """Installs the Debian packages of `tools` (tool: package) and of systemd's stub, as far as they are missing."""
    missing = [package for tool, package in tools.items() if not shutil.which(tool)]
    missing += [] if STUB.exists() else ["systemd-boot-efi"]
    if missing:
        say(f"installing {' '.join(missing)}")
        # Debian would start a server at once, on all addresses.
        quiet = {**os.environ, "RUNLEVEL": "1", "DEBIAN_FRONTEND": "noninteractive"}
        run(["apt-get", "install", "-qq", "--no-install-recommends", *missing], env=quiet, stdout=subprocess.DEVNULL)


def write_boot_set(boot_set, kernel, initramfs):
    """A boot set whose kernel and initramfs have these lengths in bytes."""
    boot_set.mkdir()
    parts = {"kernel": os.urandom(kernel), "initramfs": os.urandom(initramfs), "stub.efi": STUB.read_bytes(),
             "grubx64.efi": os.urandom(5_000)}
    described = {}
    for name, contents in parts.items():
        (boot_set / name).write_bytes(contents)
        described[name] = {"len": len(contents), "sha256": hashlib.sha256(contents).hexdigest()}
    (boot_set / "manifest.json").write_text(
        json.dumps({"version": 1, "kernel_version": "6.1.0", "files": described}))


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
