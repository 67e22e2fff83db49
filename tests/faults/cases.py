"""What is crashed and broken: each verb of the program on each kind of node, and what must hold whatever happens.

A further verb is one more line in :data:`CASES`.
"""

import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from conftest import THIS, Kept, Systemd, Tree
from machine import NOBODY, SETUID, Machine

from cni_lease_reset import service
from cni_lease_reset.core.findings import Outcome
from cni_lease_reset.core.model import BootId, DamagedMarker, Marker, NoMarker, Reading, State
from cni_lease_reset.edges import marker
from cni_lease_reset.edges.leases import is_address

from .conftest import LONG
from .tracing import Run

NEXT: Final = BootId("33333333-3333-4333-8333-333333333333")
KEPT_RESETS: Final = 1
RESET: Final = "2-20261101T061201Z-22222222"  # the newest of those that are there before
LIVING: Final = frozenset(f"10.52.0.{number}" for number in range(77, 81))  # of pods that live all the time
NETWORKS: Final = ("k8s-pod-network", "cbr0")
_STUCK: Final = re.compile(r"Lease (\S+) of \S+ stays: |cannot be read or moved: (\S+)")
Leases = dict[tuple[str, str], bytes]  # (network, address): content


class Case(NamedTuple):
    """A verb on a node."""

    name: str
    arguments: tuple[str, ...]
    prepare: Callable[[Tree], None]
    quick: bool = True  # tried by `make test`, too

    @property
    def verb(self) -> str:
        """What is done."""
        return self.arguments[0]

    def tree(self, root: Path) -> Tree:
        """Make the node anew, in the same order each time: so the program makes the same calls."""
        root.mkdir(parents=True)
        tree = Tree(root)
        self.prepare(tree)
        return tree


def _leaked(tree: Tree) -> None:
    """A node with leases of two networks and both families, one of them torn, and resets to prune."""
    for network, addresses in zip(NETWORKS, (("10.52.0.2", "fd00:52::2"), ("10.53.0.2",)), strict=True):
        for address in addresses:
            tree.lease(address, f"sandbox-of-{address}\r\neth0", network)
        tree.lease("last_reserved_ip.0", addresses[-1], network)
    tree.lease("10.52.0.9", "")
    tree.lease("10.60.0.2", network="not-ours")
    for number in (1, 2):
        old = tree.state / f"set-aside/{number}-20261101T061201Z-22222222/k8s-pod-network"
        old.mkdir(parents=True)
        for address in (f"10.52.0.10{number}", "10.52.0.2"):
            (old / address).write_text(f"long ago {number}")


def _after_a_power_cut(tree: Tree) -> None:
    _leaked(tree)
    tree.mark("running")
    tree.config(f"keep_resets: {KEPT_RESETS}\n")


def _after_a_clean_shutdown(tree: Tree) -> None:
    _leaked(tree)
    tree.mark("clean")


def _never_marked(tree: Tree) -> None:
    tree.lease("10.52.0.2")


def _damaged(tree: Tree) -> None:
    tree.lease("10.52.0.2")
    tree.mark("running")
    (tree.state / "marker").write_bytes(b"\0" * 170)
    (tree.state / "marker.new").write_text("left by a crash")


def _clean_but_misconfigured(tree: Tree) -> None:
    _leaked(tree)
    tree.mark("clean")
    tree.config("network: [k8s-pod-network]\n")


def _in_service(tree: Tree) -> None:
    _leaked(tree)
    tree.mark("running", THIS)


def _with_living_pods(tree: Tree) -> None:
    """One with a shim, one known by its address alone, a plugin at work, one of CRI-O; and impostors of the dead."""
    machine = Machine(tree.root)
    _in_service(tree)
    for address in LIVING:
        tree.lease(address, f"living-at-{address}\r\neth0")
    machine.process("containerd-shim-runc-v2", "-namespace", "k8s.io", "-id", "living-at-10.52.0.77")
    machine.addresses(machine.process("pause", user=NOBODY), "10.52.0.78")
    machine.process("/opt/cni/bin/bridge", environment=["CNI_CONTAINERID=living-at-10.52.0.79"])
    machine.file("run/containers/storage/overlay-containers/living-at-10.52.0.80/userdata/config.json")
    machine.process("containerd-shim-runc-v2", "-namespace", "k8s.io", "-id", "sandbox-of-10.52.0.2", user=NOBODY)
    machine.process("containerd-shim", "-c", "sandbox-of-fd00:52::2", "root", user=SETUID)
    machine.process("/usr/bin/conmon", "-c", "sandbox-of-10.53.0.2", nspid="4711\t7")


CASES: Final = (
    Case("boot after a power cut", ("boot",), _after_a_power_cut),
    Case("boot after a clean shutdown", ("boot",), _after_a_clean_shutdown),
    Case("boot without a marker", ("boot",), _never_marked, quick=False),
    Case("boot with a damaged marker", ("boot",), _damaged, quick=False),
    Case("boot with an invalid configuration", ("boot",), _clean_but_misconfigured, quick=False),
    Case("shutdown", ("shutdown", "--force"), _in_service),
    Case("recover", ("recover", "--yes"), _with_living_pods),
    Case("restore", ("restore", RESET), _in_service),
)

TRIED: Final = tuple(case for case in CASES if case.quick or LONG)


def live(tree: Tree) -> Leases:
    """The leases where host-local has them, of every network."""
    return {
        (path.parent.name, path.name): path.read_bytes()
        for path in tree.data.glob("*/*")
        if is_address(path.name) and path.is_file()
    }


def aside(tree: Tree) -> dict[str, Leases]:
    """The leases set aside, by reset."""
    found: dict[str, Leases] = {}
    for path in tree.state.glob("set-aside/*/*/*"):
        found.setdefault(path.parents[1].name, {})[(path.parent.name, path.name)] = path.read_bytes()
    return found


def reading(tree: Tree) -> Reading:
    """The marker."""
    return marker.read(tree.node)


class Before(NamedTuple):
    """A node before the program ran."""

    live: Leases
    aside: dict[str, Leases]
    reading: Reading

    @classmethod
    def of(cls, tree: Tree) -> "Before":
        """Look at it."""
        return cls(live(tree), aside(tree), reading(tree))


def nothing_is_lost(case: Case, before: Before, tree: Tree, *, old_resets: bool = True, said: str) -> None:
    """Each lease is where it was or in a reset, once, as it was; only what `keep_resets` lets go is gone."""
    now, resets = live(tree), aside(tree)
    were = Counter([*before.live.items(), *_all(before.aside)])
    are = Counter([*now.items(), *_all(resets)])
    may_go: Counter[tuple[tuple[str, str], bytes]] = Counter()
    if case.verb == "boot":
        new = resets.keys() - before.aside.keys()
        kept = sorted(before.aside)[len(before.aside) - KEPT_RESETS + len(new) :] if old_resets else []
        may_go = Counter(_all({name: leases for name, leases in before.aside.items() if name not in kept}))
    assert not are - were, f"{said}: from nowhere: {are - were}"
    assert not were - are - may_go, f"{said}: lost: {were - are - may_go}"
    others = {key: content for key, content in before.live.items() if key[0] not in NETWORKS or key[1] in LIVING}
    assert others.items() <= now.items(), f"{said}: a living pod's lease was touched, or a network that nobody named"


def _all(resets: dict[str, Leases]) -> list[tuple[tuple[str, str], bytes]]:
    return [lease for leases in resets.values() for lease in leases.items()]


def the_marker_is_believable(case: Case, before: Before, tree: Tree, *, failed: str | None = None, said: str) -> None:
    """It is the old one, whole, or what this verb may leave; leases move only when the old one is gone for good.

    `failed`: what was said of a call that failed, nothing where that was the writing to stderr; `None` where none did.
    """
    now = reading(tree)
    match case.verb:
        case "boot":
            written = isinstance(now, Marker) and (now.state, now.boot_id) == (State.RUNNING, THIS)
            untouched = now == before.reading and live(tree) == before.live
            stuck = now == before.reading and "cannot be removed" in (failed or "")
            assert written or isinstance(now, NoMarker) or untouched or stuck, f"{said}: the marker is {now}"
        case "shutdown":
            gone = isinstance(now, NoMarker) and (failed == "" or "Not marked as clean: " in (failed or ""))
            assert gone or (isinstance(now, Marker) and now.boot_id == THIS), f"{said}: the marker is {now}"
            assert live(tree) == before.live, said
        case _:
            assert now == before.reading, f"{said}: the marker is {now}"


def it_is_done_or_told(case: Case, before: Before, tree: Tree, run: Run, *, said: str) -> None:
    """Status 0 only where all was done; after `boot` no older marker stays, and "running" means done."""
    now = reading(tree)
    stays = LIVING.union(*_STUCK.findall(run.stderr + run.stdout))  # of an error that is one lease's own
    left = {key: content for key, content in live(tree).items() if key[0] in NETWORKS and key[1] not in stays}
    match case.verb:
        case "boot":
            was_clean = isinstance(before.reading, Marker) and before.reading.state is State.CLEAN
            done = not any(not (was_clean and content) for content in left.values())
            marked = isinstance(now, Marker) and (now.state, now.boot_id) == (State.RUNNING, THIS)
            assert done or not marked, f"{said}: marked as running, and left {left}"
            # A refusal, and a record under /run that cannot be read, are told and nothing to try again in this boot.
            told = (
                run.status != 0
                or "leases kept: " in run.stderr
                or "/run/cni-lease-reset/boot cannot be read" in run.stderr
            )
            assert (done and marked) or told, f"{said}: left {left}, and the marker is {now}"
            unreached = any(
                words in run.stderr
                for words in ("Nothing could be judged", "cannot be removed", "stays as it is", f"'{tree.root}': ")
            )
            assert marked or isinstance(now, NoMarker) or unreached, f"{said}: the marker is {now}"
        case "shutdown":
            assert run.status != 0 or (isinstance(now, Marker) and now.state is State.CLEAN), f"{said}: {now}"
        case "recover":
            assert run.status != 0 or not left, f"{said}: {left}"
        case _:
            is_back = ("k8s-pod-network", "10.52.0.102") in left
            assert run.status != 0 or is_back or "10.52.0.102" in stays, f"{said}: {left}"


def the_next_boot_mends_it(before: Before, tree: Tree, *, said: str) -> Outcome:
    """Whatever a crash left, the next boot judges by the marker, clears what is due, and leaves the usual state."""
    tree.config(f"keep_resets: {KEPT_RESETS}\n")
    for process in tree.root.glob("proc/[0-9]*"):
        shutil.rmtree(process)  # no pod outlives its kernel
    shutil.rmtree(tree.root / "run/containers", ignore_errors=True)
    found = reading(tree)
    resets = aside(tree)
    tree.next_kernel(NEXT)
    outcome = service.boot(tree.node, Systemd(), Kept())
    expected = {NoMarker: "unknown", DamagedMarker: "damaged"}.get(type(found), "")
    if isinstance(found, Marker):
        expected = "clean" if found.state is State.CLEAN else "unclean"
    assert outcome.judgement.verdict == expected, said
    assert outcome.result in ("cleared", "nothing-due"), f"{said}: {outcome}"
    after = reading(tree)
    assert isinstance(after, Marker), said
    assert (after.state, after.boot_id) == (State.RUNNING, NEXT), said
    left = {key for key, content in live(tree).items() if key[0] in NETWORKS and (expected != "clean" or not content)}
    assert not left, f"{said}: still there {left}"
    assert not list(tree.state.glob("*.new")), said
    assert len(aside(tree)) <= KEPT_RESETS or outcome.reset is None, said
    if outcome.reset is not None:
        gone = before.live.keys() - live(tree).keys() - {key for leases in resets.values() for key in leases}
        assert gone <= aside(tree)[outcome.reset].keys(), said
    return outcome
