"""Does with sushy, the Redfish client of Ironic, what a boot over HTTP needs."""

import sys

import sushy
import sushy.auth

ADDRESS, URL = sys.argv[1:]


def connect(auth):
    return sushy.Sushy(ADDRESS, auth=auth, verify=False)


def await_power(system, wanted):
    """A power button is pressed, and the machine goes off in its own time."""
    for _ in range(1000):
        system.refresh()
        if system.power_state == wanted:
            return
    raise SystemExit(f"the machine is {system.power_state}, not {wanted}")


basic = connect(sushy.auth.BasicAuth("admin", "secret"))
(system,) = basic.get_system_collection().get_members()
assert system.power_state == sushy.PowerState.OFF, system.power_state
assert list(system.ethernet_interfaces.summary) == ["52:54:00:00:00:01"]

system.set_system_boot_options(
    target=sushy.BootSource.UEFI_HTTP,
    enabled=sushy.BootSourceOverrideEnabled.ONCE,
    http_boot_uri=URL,
)
system.refresh()
assert system.boot.target == sushy.BootSource.UEFI_HTTP, system.boot.target
assert system.boot.http_boot_uri == URL, system.boot.http_boot_uri

system.reset_system(sushy.ResetType.ON)
await_power(system, sushy.PowerState.ON)
# Once is once: the machine has begun to boot, and the next boot is the usual one.
assert system.boot.enabled == sushy.BootSourceOverrideEnabled.DISABLED, system.boot.enabled
system.reset_system(sushy.ResetType.GRACEFUL_SHUTDOWN)
await_power(system, sushy.PowerState.OFF)

session = connect(sushy.auth.SessionAuth("admin", "secret"))
(system,) = session.get_system_collection().get_members()
system.reset_system(sushy.ResetType.ON)
system.reset_system(sushy.ResetType.FORCE_OFF)
await_power(system, sushy.PowerState.OFF)

try:
    connect(sushy.auth.BasicAuth("admin", "wrong")).get_system_collection()
    raise SystemExit("a wrong password was taken")
except sushy.exceptions.AccessError:
    pass
