"""What the benchmarks in Python share: processes that end with the benchmark, turns, medians and output."""

import ctypes
import signal
import statistics
import subprocess
import sys
import time


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
