"""On a disk that hangs RKE2 begins all the same, and no later than our unit's own times add up to."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple

import never_answers
import pytest
from conftest import NO_LAB

from .conftest import NewNode
from .node import RKE2, UNIT, Node

DISK: Final = "/var/lib/cni"
PROGRAM: Final = "usr/lib/lab/never-answers"
# RKE2 itself would hang there, too; when it begins is what is asked.
ELSEWHERE: Final = "[Service]\nType=exec\nExecStart=\nExecStart=/usr/bin/sleep infinity\n"
SLOW: Final = 16.0  # seconds until it fails what it was asked first; the unit gives the mkdir a little more
LATE: Final = 3.0  # systemd's timers ring up to a quarter of a second late, and the machine may be busy


class Wait(NamedTuple):
    """How long RKE2 waited for our unit, and the times that the unit has, in seconds."""

    waited: float
    start: int  # for a command to start, and
    stop: int  # for each phase of its end


def boot_on(node: Node, options: str) -> Wait:
    """Boot with a disk that hangs, after a power cut."""
    node.start()
    node.write(PROGRAM, never_answers.PROGRAM)
    node.write(f"etc/systemd/system/{RKE2}.d/lab.conf", ELSEWHERE)
    serve = f"ExecStart=/usr/bin/python3 /{PROGRAM} {DISK} {options}"
    node.early("Type=notify", "ExecStartPre=mknod -m 600 /dev/fuse c 10 229", serve)
    node.crash()

    node.start()
    assert node.show("ActiveState", "Result") == ("failed", "timeout")
    began = [int(node.show("InactiveExitTimestampMonotonic", unit=unit)[0]) for unit in (UNIT, RKE2)]
    assert 0 < began[0] < began[1]
    times = (int(each.removesuffix("s")) for each in node.show("TimeoutStartUSec", "TimeoutStopUSec"))
    node.crash()
    return Wait((began[1] - began[0]) / 1e6, *times)


@pytest.fixture(scope="module")
def waits(new_node: NewNode, room: Path) -> tuple[Wait, ...]:
    """Of a disk that hangs from the start, and of one that fails first. Both at once: nothing is done but wait."""
    if "\tfuse\n" not in Path("/proc/filesystems").read_text():
        pytest.skip(f"{NO_LAB} that has FUSE")
    nodes = [new_node(room / name) for name in ("hangs", "fails first")]
    with ThreadPoolExecutor() as threads:  # a machine lives as long as the thread that started it
        return tuple(threads.map(boot_on, nodes, ("", f"--slow {SLOW}")))


def test_a_mkdir_that_hangs_is_forgotten_after_two_phases_of_its_end(waits: tuple[Wait, ...]) -> None:
    """KillMode=process: what is left of a start that failed is waited for no longer."""
    waited, start, stop = waits[0]
    print(f"The disk hangs from the start: RKE2 began {waited:.1f} s after us")
    assert start + 2 * stop <= waited < start + 2 * stop + LATE


def test_at_worst_the_mkdir_just_ends_in_time_and_boot_hangs(waits: tuple[Wait, ...]) -> None:
    waited, start, stop = waits[1]
    print(f"The disk fails what it is asked first after {SLOW} s, and hangs: RKE2 began {waited:.1f} s after us")
    assert SLOW + start + 4 * stop <= waited < 2 * start + 4 * stop
