"""What the next boot makes of this one: every end of the boot before, everything that can become of us, every end.

Three boots under a real systemd: the first leaves a mark, clean or not; of the second something becomes; the third judges.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

import pytest

from .conftest import NewNode
from .machine import copy
from .node import CONFIG, LAUNCHER, RKE2, STATE, UNIT, Node

TYPO: Final = "netwroks: [k8s-pod-network]\n"
WAITS: Final = "ExecStart=/usr/bin/sleep infinity"
HELD: Final = f"/{STATE}/../networks/k8s-pod-network/lock"
FIFO: Final = "run/lab-fifo"


def nothing(_node: Node) -> None:
    pass


def refuse(node: Node) -> None:
    node.write(CONFIG, "runtime_units: [lab-early.service]\n")
    node.early("Type=exec", WAITS)


def fail(node: Node) -> None:
    node.early(
        "Type=notify", "NotifyAccess=all", f"ExecStart=flock {HELD} sh -c 'systemd-notify --ready; sleep infinity'"
    )


def misconfigure(node: Node) -> None:
    node.write(CONFIG, TYPO)


def kill(node: Node) -> None:
    node.early("Type=notify", "NotifyAccess=all", "ExecStart=/usr/lib/lab/signal-boot KILL")


def mask(node: Node) -> None:
    node.mask()


def break_the_interpreter(node: Node) -> None:
    node.write(LAUNCHER, "#!/usr/bin/python3.99 -I\n", mode=0o755)


def hold_up_the_shutdown(node: Node) -> None:
    node.early("Type=exec", f"ExecStartPre=mkfifo /{FIFO}", WAITS, f"ExecStop=cat /{FIFO}")


def cancel_the_shutdown(node: Node) -> None:
    node.run("systemctl --no-block poweroff")
    with (node.root / FIFO).open("w"):  # somebody reads: what stops before has stopped
        node.run("systemctl cancel")
    node.run("systemctl stop lab-early.service")
    assert node.show("ActiveState") == ("inactive",)
    assert node.marked() == "clean"


def cancel_and_start_pods(node: Node) -> None:
    cancel_the_shutdown(node)
    node.run(f"systemctl start {RKE2}")


def cancel_and_start_us(node: Node) -> None:
    cancel_the_shutdown(node)
    node.run(f"systemctl start {UNIT} {RKE2}")
    assert node.marked() == "running"


def stop(node: Node) -> None:
    node.run(f"systemctl stop {UNIT}")
    assert node.marked() == "none"


def stop_and_start(node: Node) -> None:
    stop(node)
    node.run(f"systemctl start {UNIT}")
    assert node.marked() == "running"


def restart_with_a_typo(node: Node) -> None:
    node.write(CONFIG, TYPO)
    node.run(f"systemctl restart {UNIT}")
    assert node.marked() == "running"


def restart_under_the_lock(node: Node) -> None:
    with node.our_lock():
        node.run(f"systemctl restart {UNIT}")
    assert node.marked() == "running"


class Fate(NamedTuple):
    """What becomes of us in a boot, how systemd sees it, and what the next boot says after each end of this one."""

    name: str
    prepare: Callable[[Node], None]
    unit: tuple[str, str]  # how its start ended: Result, ExecMainStatus
    act: Callable[[Node], None]
    after_poweroff: str
    after_power_cut: str


WELL: Final = ("success", "0")
STAYS: Final = "as the mark of the boot before"  # nobody took it
FATES: Final = (
    Fate("done", nothing, WELL, nothing, "clean", "unclean"),
    Fate("refused", refuse, WELL, nothing, "unknown", "unknown"),
    Fate("failed", fail, ("exit-code", "74"), nothing, "unknown", "unknown"),
    Fate("misconfigured", misconfigure, ("exit-code", "78"), nothing, "unknown", "unknown"),
    Fate("killed", kill, ("signal", "9"), nothing, "unknown", "unknown"),
    Fate("masked", mask, WELL, nothing, STAYS, STAYS),
    Fate("no interpreter", break_the_interpreter, ("exit-code", "203"), nothing, STAYS, STAYS),
    Fate("shutdown cancelled", hold_up_the_shutdown, WELL, cancel_and_start_pods, "unknown", "unknown"),
    Fate("shutdown cancelled, no pods", hold_up_the_shutdown, WELL, cancel_the_shutdown, "clean", "clean"),
    Fate("shutdown cancelled, started", hold_up_the_shutdown, WELL, cancel_and_start_us, "clean", "unclean"),
    Fate("stopped", nothing, WELL, stop, "unknown", "unknown"),
    Fate("stopped and started", nothing, WELL, stop_and_start, "clean", "unclean"),
    Fate("restarted with a typo", nothing, WELL, restart_with_a_typo, "clean", "unclean"),
    Fate("restarted under the lock", nothing, WELL, restart_under_the_lock, "clean", "unclean"),
)
# A clean mark that nobody took is disproved by the leases of the boot that nobody judged.
STAYED: Final = {"clean": "unknown", "unclean": "unclean"}


class Ended(NamedTuple):
    """A boot's two ends, and what the next one is to say."""

    disks: dict[str, Path]
    expected: dict[str, str]


@pytest.fixture(scope="session")
def before(room: Path, new_node: NewNode) -> dict[str, Path]:
    """A first boot's disk, after each end."""
    node = new_node(room / "clean")
    node.start()
    assert len(node.leases()) == 3
    disks = {"unclean": copy(node.disk, room / "unclean"), "clean": node.disk}
    node.poweroff()
    return disks


@pytest.fixture(
    scope="module",
    params=[(mark, fate) for mark in STAYED for fate in FATES],
    ids=lambda row: f"{row[0]}, {row[1].name}",
)
def ended(request: pytest.FixtureRequest, before: dict[str, Path], room: Path, new_node: NewNode) -> Iterator[Ended]:
    """A second boot, and what became of us."""
    mark, fate = request.param
    with TemporaryDirectory(dir=room) as folder:
        node = new_node(copy(before[mark], Path(folder) / "poweroff"))
        fate.prepare(node)
        node.start()
        assert node.show("Result", "ExecMainStatus") == fate.unit
        assert node.show("ActiveState", unit=RKE2) == ("active",), "it starts whatever becomes of us"
        assert node.torn()
        fate.act(node)
        disks = {"power cut": copy(node.disk, Path(folder) / "power cut"), "poweroff": node.disk}
        node.poweroff()
        expected = {"poweroff": fate.after_poweroff, "power cut": fate.after_power_cut}
        yield Ended(disks, {end: STAYED[mark] if verdict is STAYS else verdict for end, verdict in expected.items()})


@pytest.mark.parametrize("end", ["poweroff", "power cut"])
def test_the_next_boot_tells_how_this_one_ended(ended: Ended, end: str, new_node: NewNode) -> None:
    node = new_node(ended.disks[end])
    node.mend()
    leases, torn = node.leases(), node.torn()
    node.start()
    (told,) = node.verdicts()
    node.crash()
    assert told["CNI_VERDICT"] == ended.expected[end], told["MESSAGE"]
    due = torn if told["CNI_VERDICT"] == "clean" else leases
    assert node.set_aside(told["CNI_RESET"]) == due
    assert not node.leases() & due
    assert leases - due <= node.leases()
