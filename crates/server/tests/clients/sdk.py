"""What a program does with openstacksdk, against the API at $OS_ENDPOINT."""

import os

import openstack
from openstack import exceptions

AUTH_TYPE = os.environ["OS_AUTH_TYPE"]
LOGIN = {"username": os.environ["OS_USERNAME"], "password": os.environ["OS_PASSWORD"]}

baremetal = openstack.connect(
    auth_type=AUTH_TYPE,
    auth={"endpoint": os.environ["OS_ENDPOINT"], **(LOGIN if AUTH_TYPE == "http_basic" else {})},
    baremetal_endpoint_override=os.environ["OS_ENDPOINT"],
    load_yaml_config=False,
    load_envvars=False,
).baremetal

node = baremetal.create_node(
    name="sdk-1",
    driver="redfish",
    boot_interface="redfish-http-url",
    driver_info={"redfish_address": "http://127.0.0.1:9", "redfish_password": "hush"},
)
assert node.boot_interface == "redfish-https", node.boot_interface
assert node.driver_info["redfish_password"] == "******", "a secret is shown"
assert node.provision_state == "enroll", node.provision_state

port = baremetal.create_port(node_id=node.id, address="52:54:00:00:05:01", is_pxe_enabled=True)
assert [found.id for found in baremetal.ports(node=node.id)] == [port.id]
assert [found.address for found in baremetal.ports(details=True)] == ["52:54:00:00:05:01"]

# Waits until the BMC was asked.
node = baremetal.set_node_provision_state(node, "manage", wait=True, timeout=60)
assert node.provision_state == "manageable", node.provision_state
node = baremetal.patch_node(node, [{"op": "add", "path": "/extra/rack", "value": 7}])
assert node.extra == {"rack": 7}, node.extra
baremetal.set_node_power_state(node, "power on", wait=True, timeout=60)
assert baremetal.get_node("sdk-1").power_state == "power on"

baremetal.add_node_trait(node, "CUSTOM_GPU")
assert baremetal.get_node(node.id).traits == ["CUSTOM_GPU"]
baremetal.set_node_maintenance(node, "a fan is loud")
assert baremetal.get_node(node.id).maintenance_reason == "a fan is loud"
baremetal.unset_node_maintenance(node)
assert not baremetal.get_node(node.id).is_maintenance

reports = baremetal.validate_node(node, required=())
assert not reports["boot"].result
assert "Connection refused" in reports["boot"].reason, reports["boot"].reason
assert [found.name for found in baremetal.nodes(details=True, provision_state="manageable")] == ["sdk-1"]
assert [driver.name for driver in baremetal.drivers()] == ["redfish"]

try:
    baremetal.set_node_provision_state(node, "inspect")
    raise AssertionError("an inspection was begun")
except exceptions.BadRequestException as refused:
    assert '"inspect" is not supported by this service' in str(refused), refused

baremetal.delete_port(port)
baremetal.delete_node(node)
assert baremetal.find_node("sdk-1") is None
