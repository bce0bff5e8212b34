"""Runs a private daemon of libvirt with a storage pool and machines: FOLDER, the pool's XML file, a machine's XML file, …

Ends with the daemon.
"""

import ctypes
import os
import subprocess
import sys
import threading

import libvirt

PR_SET_CHILD_SUBREAPER = 36

folder, pool, *machines = sys.argv[1:]

# libvirt waits until a machine's process is gone. Its parent is this process, since it detaches itself, and the first
# process of the lab reaps none that it did not start.
ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)

# The daemon of an ordinary user, in a user namespace: it uses no folder of the system. Its sockets are ready when its
# first process ends.
folders = {"RUNTIME_DIR": "run", "CONFIG_HOME": "config", "CACHE_HOME": "cache", "DATA_HOME": "data"}
environment = {f"XDG_{name}": f"{folder}/{path}" for name, path in folders.items()}
environment |= {"HOME": folder, "LIBVIRT_LOG_OUTPUTS": f"3:file:{folder}/libvirtd.log"}
daemon = ["unshare", "--user", "--map-user=1000", "libvirtd", "--daemon", "--config", f"{folder}/libvirtd.conf"]
subprocess.run(daemon, check=True, env=os.environ | environment)


def reap():
    """Returns when the daemon and all its machines have ended."""
    try:
        while True:
            os.wait()
    except ChildProcessError:
        pass


reaper = threading.Thread(target=reap)
reaper.start()

connection = libvirt.open(f"qemu+unix:///session?socket={folder}/run/libvirt/libvirt-sock")
with open(pool, encoding="utf-8") as xml:
    connection.storagePoolDefineXML(xml.read()).create()
for machine in machines:
    with open(machine, encoding="utf-8") as xml:
        connection.defineXML(xml.read())
connection.close()
print("ready: libvirt", file=sys.stderr, flush=True)
reaper.join()
