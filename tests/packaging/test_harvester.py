"""What Harvester is given, held against the keys that its parts know: they ignore a mistyped one in silence."""

import re
import subprocess

import pytest
import yaml
from conftest import TOP

from cni_lease_reset.edges import config

HARVESTER = TOP / "packaging/harvester"
CLOUDINIT = (HARVESTER / "cloudinit.yaml").read_text()
INSTALL = (HARVESTER / "install.yaml").read_text()

# The types of each key, from the sources of node-manager (the resource) and of yip (schema.go: what lies in /oem).
# Only what we use, and what could be meant by a slip; a key that is missing here is an error.
RESOURCE = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str},
    "spec": {"matchSelector": {"harvesterhci.io/managed": str}, "filename": str, "contents": str, "paused": bool},
}
STEP = {
    "name": str,
    "if": str,
    "commands": [str],
    "directories": [{"path": str, "permissions": int, "owner": int, "group": int}],
    "files": [{"path": str, "permissions": int, "owner": int, "group": int, "content": str, "encoding": str}],
    "systemctl": {"enable": [str], "disable": [str], "start": [str], "mask": [str]},
}
# Elemental's stages in which Harvester runs what lies in /oem.
STAGES = ("after-upgrade-chroot", "after-upgrade", "rootfs", "initramfs", "fs", "boot", "network", "reconcile")
YIP = {"name": str, "stages": {stage: [STEP] for stage in STAGES}}
CONFIGURATION = {"os": {"after_install_chroot_commands": [str]}}
PROTECTED = {"90_custom.yaml", "99_settings.yaml", "elemental.config", "grubenv", "harvester.config", "install"}


class Strict(yaml.SafeLoader):
    """Refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        mapping: dict[object, object] = super().construct_mapping(node, deep=deep)
        if len(mapping) != len(node.value):
            raise ValueError("a key is given twice")
        return mapping


def load(text: str) -> object:
    return yaml.load(text, Loader=Strict)


def check(value: object, schema: object, where: str = "") -> None:
    """Raise for a key that the schema does not have, and for a value of another type."""
    if isinstance(schema, dict):
        assert isinstance(value, dict), where
        for key, each in value.items():
            assert key in schema, f"{where}: nobody reads {key!r}"
            check(each, schema[key], f"{where}.{key}")
    elif isinstance(schema, list):
        assert isinstance(value, list), where
        assert value, f"{where}: empty"
        for each in value:
            check(each, schema[0], where)
    else:
        assert type(value) is schema, where


def check_cloudinit(text: str) -> dict[str, list[dict[str, object]]]:
    """Check the resource and what it puts into /oem; return the stages."""
    resource = load(text)
    check(resource, RESOURCE)
    assert isinstance(resource, dict)
    assert (resource["apiVersion"], resource["kind"]) == ("node.harvesterhci.io/v1beta1", "CloudInit")
    assert resource["spec"]["filename"].endswith(".yaml")
    assert resource["spec"]["filename"] not in PROTECTED
    contents = load(resource["spec"]["contents"])
    check(contents, YIP)
    assert isinstance(contents, dict)
    stages: dict[str, list[dict[str, object]]] = contents["stages"]
    return stages


def commands(step: dict[str, object]) -> list[str]:
    found = step["commands"]
    assert isinstance(found, list)
    return found


def test_each_key_is_one_that_somebody_reads() -> None:
    assert set(check_cloudinit(CLOUDINIT)) == {"after-upgrade-chroot", "initramfs"}
    check(load(INSTALL), CONFIGURATION)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("commands:", "command:"),  # how Harvester's own reset did nothing in two releases
        ("stages:", "stage:"),
        ("after-upgrade-chroot:", "after-upgrade-chroots:"),
        ("directories:", "dirs:"),
        ("permissions: 0644", "permissions: '0644'"),
        ("content: |", "contents: |"),
        ("matchSelector:", "matchselector:"),
        ("filename: 95_cni_lease_reset.yaml", "filename: 95_cni_lease_reset"),
        ("  paused: false", "  paused: false\n  paused: true"),
    ],
)
def test_a_slip_is_found(right: str, wrong: str) -> None:
    assert right in CLOUDINIT
    with pytest.raises((AssertionError, ValueError)):
        check_cloudinit(CLOUDINIT.replace(right, wrong))


def test_install_and_upgrade_run_the_same_commands() -> None:
    install = load(INSTALL)
    assert isinstance(install, dict)
    steps = check_cloudinit(CLOUDINIT)["after-upgrade-chroot"]
    assert [line for step in steps for line in commands(step)] == install["os"]["after_install_chroot_commands"]


def test_the_commands_are_shell_and_enable_the_unit() -> None:
    (step,) = check_cloudinit(CLOUDINIT)["after-upgrade-chroot"]
    for line in commands(step):
        assert subprocess.run(["sh", "-n", "-c", line], check=False).returncode == 0, line
    assert commands(step)[-1] == "systemctl enable cni-lease-reset.service"
    assert (
        len([line for line in commands(step) if re.search(r"zypper .*install .*/cni-lease-reset\.noarch\.rpm$", line)])
        == 1
    )


def test_the_settings_for_harvester_are_settings_of_ours() -> None:
    (step,) = check_cloudinit(CLOUDINIT)["initramfs"]
    files = step["files"]
    assert isinstance(files, list)
    (file,) = files
    assert (file["path"], file["permissions"]) == ("/etc/cni-lease-reset/config.yaml", 0o644)
    assert config.parse(file["content"].encode()).max_kept_leases == 53
