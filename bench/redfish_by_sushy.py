"""Reads the power state and the boot override of many BMCs with sushy, as crates/bmcs/examples/redfish-read does.

    redfish_by_sushy.py URL_WITHOUT_PORT FIRST_PORT COUNT CERTIFICATE THREADS WARM close|keep

Prints the same JSON. sushy asks BMCs to close the connection after each request; with `keep`, it does not.
"""

import json
import logging
import re
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import sushy
import sushy.auth
import sushy.connector


def main():
    url, first, number, certificate, threads, warm, connections = sys.argv[1:]
    logging.disable()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    fleet = [Bmc(f"{url}:{int(first) + each}", certificate, connections == "keep") for each in range(int(number))]
    with ThreadPoolExecutor(int(threads)) as pool:
        readings = [measured(pool, fleet, Bmc.read_first)]
        readings += [measured(pool, fleet, Bmc.read_again) for _ in range(int(warm))]
        list(pool.map(Bmc.close, fleet))
    rss = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)[1]
    print(json.dumps({"readings": readings, "rss_mib": int(rss) // 1024}))


def measured(pool, fleet, read):
    begun, cpu, requests = time.monotonic(), time.process_time(), Bmc.requests_so_far()
    for state, overridden in pool.map(read, fleet):
        assert state == sushy.PowerState.OFF, state
        assert overridden == sushy.BootSourceOverrideEnabled.DISABLED, overridden
    secs, cpu_secs = time.monotonic() - begun, time.process_time() - cpu
    return {"secs": secs, "cpu_secs": cpu_secs, "requests": Bmc.requests_so_far() - requests}


class Bmc:
    counter = count()
    asked = 0

    @classmethod
    def requests_so_far(cls):
        # `next` on it is atomic between threads, `+= 1` is not. Each look takes a number itself.
        cls.asked += 1
        return next(cls.counter) - cls.asked + 1

    def __init__(self, url, certificate, keep):
        self.url = url
        self.connector = sushy.connector.Connector(url, verify=certificate)
        session = self.connector._session
        session.hooks["response"].append(lambda *_, **__: next(self.counter) and None)
        if keep:
            session.headers["Connection"] = "keep-alive"

    def read_first(self):
        self.auth = sushy.auth.SessionAuth("admin", "secret")
        self.root = sushy.Sushy(self.url, auth=self.auth, connector=self.connector)
        (self.system,) = self.root.get_system_collection().get_members()
        return self.state()

    def read_again(self):
        self.system.refresh(force=True)
        return self.state()

    def state(self):
        return self.system.power_state, self.system.boot.enabled

    def close(self):
        self.auth.close()
        self.connector.close()


main()
