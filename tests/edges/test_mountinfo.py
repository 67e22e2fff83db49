"""The kernel's table of mounts."""

from pathlib import Path

from cni_lease_reset.edges import mountinfo


def test_the_kernels_own_table_is_read_to_its_end() -> None:
    table = Path("/proc/self/mountinfo").read_text()
    assert len(mountinfo.parse(table)) == len(table.splitlines())


def test_a_mounted_namespace_shows_its_kind_and_its_number() -> None:
    line = "530 25 0:4 net:[4026532008] /run/netns/cni-1\\040a rw shared:7 - nsfs nsfs rw\n"
    assert mountinfo.parse(line) == (mountinfo.Mount("net:[4026532008]", "/run/netns/cni-1 a", "nsfs", ("rw",)),)


def test_a_path_may_hold_what_elsewhere_ends_a_line() -> None:
    line = "530 25 0:4 net:[4026532008] /run/a\x0cb\u2028c rw shared:7 - nsfs nsfs rw\n"
    assert mountinfo.parse(line) == (mountinfo.Mount("net:[4026532008]", "/run/a\x0cb\u2028c", "nsfs", ("rw",)),)
