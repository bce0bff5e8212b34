"""Does with sushy on each platform what Ironic does for a boot: walks the tree, sets the override that the platform
supports, and switches the power."""

import sys

import sushy
import sushy.auth

HTTP = sushy.BootSource.UEFI_HTTP
PXE = sushy.BootSource.PXE
# The target, and the URL where the platform takes one. HPE's iLO takes no mode, Supermicro needs it.
WAYS = {
    "generic": (HTTP, "http://192.0.2.1/boot.iso", None),
    "ami": (HTTP, "http://192.0.2.1/boot.iso", None),
    "dell-idrac9": (HTTP, None, None),
    "dell-idrac10": (HTTP, None, None),
    "hpe-ilo5": (HTTP, None, None),
    "hpe-ilo6": (HTTP, None, None),
    "lenovo-xcc": (PXE, None, None),
    "supermicro": (HTTP, None, sushy.BootSourceOverrideMode.UEFI),
    "openbmc": (PXE, None, None),
    "nvidia-bluefield": (HTTP, "http://192.0.2.1/boot.iso", None),
}


def drive(platform, address):
    auth = sushy.auth.SessionOrBasicAuth("admin", "secret")
    bmc = sushy.Sushy(address, auth=auth, verify=False)
    (system,) = bmc.get_system_collection().get_members()
    (manager,) = bmc.get_manager_collection().get_members()
    (chassis,) = bmc.get_chassis_collection().get_members()
    assert manager.manager_type == sushy.ManagerType.BMC, manager.manager_type
    assert list(system.ethernet_interfaces.summary) == ["52:54:00:00:00:01"]
    if platform not in ("generic", "openbmc", "nvidia-bluefield"):
        assert system.bios.attributes, platform
    assert system.power_state == sushy.PowerState.OFF, system.power_state
    target, url, mode = WAYS[platform]
    once = sushy.BootSourceOverrideEnabled.ONCE
    system.set_system_boot_options(target=target, enabled=once, mode=mode, http_boot_uri=url)
    system.reset_system(sushy.ResetType.ON)
    system.refresh()
    assert system.power_state == sushy.PowerState.ON, system.power_state
    assert system.boot.enabled == sushy.BootSourceOverrideEnabled.DISABLED, system.boot.enabled
    system.reset_system(sushy.ResetType.FORCE_OFF)
    system.refresh()
    assert system.power_state == sushy.PowerState.OFF, system.power_state
    for media in media_of(system, manager):
        media.insert_media("http://192.0.2.1/cd.iso")
        media.eject_media()


def media_of(system, manager):
    for owner in (system, manager):
        try:
            return owner.virtual_media.get_members()
        except sushy.exceptions.MissingAttributeError:
            pass
    return []


for argument in sys.argv[1:]:
    platform, address = argument.split("=")
    try:
        drive(platform, address)
    except Exception as failed:
        raise SystemExit(f"{platform}: {failed!r}") from failed
