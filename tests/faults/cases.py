"""What is crashed and broken: each verb of the program on each kind of node, and what must hold whatever happens.

A further verb is one more line in :data:`CASES`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from conftest import THIS, Kept, Systemd, Tree

from cni_lease_reset import durable, marker, service
from cni_lease_reset.leases import is_address
from cni_lease_reset.model import BootId, DamagedMarker, Marker, NoMarker, Outcome, Reading, State

from .conftest import LONG

NEXT: Final = BootId("33333333-3333-4333-8333-333333333333")
KEPT_RESETS: Final = 1
NETWORKS: Final = ("k8s-pod-network", "cbr0")
Leases = dict[tuple[str, str], bytes]  # (network, address): content


class Case(NamedTuple):
    """A verb on a node."""

    name: str
    arguments: tuple[str, ...]
    prepare: Callable[[Tree], None]
    judges: bool = True  # it is `boot`: leases may go, and the disk must not say "clean" when it is done
    quick: bool = True  # tried by `make test`, too

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
        old = tree.state / f"set-aside/{number}-20261101T061201Z-22222222/k8s-pod-network/10.52.0.{number}"
        old.parent.mkdir(parents=True)
        old.write_text("long ago")


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


CASES: Final = (
    Case("boot after a power cut", ("boot",), _after_a_power_cut),
    Case("boot after a clean shutdown", ("boot",), _after_a_clean_shutdown),
    Case("boot without a marker", ("boot",), _never_marked, quick=False),
    Case("boot with a damaged marker", ("boot",), _damaged, quick=False),
    Case("boot with an invalid configuration", ("boot",), _clean_but_misconfigured, quick=False),
    Case("shutdown", ("shutdown", "--force"), _in_service, judges=False),
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
    try:
        with durable.directory("/var/lib/cni/cni-lease-reset", root=str(tree.root)) as state:
            return marker.read(state)
    except FileNotFoundError:
        return NoMarker()


class Before(NamedTuple):
    """A node before the program ran."""

    live: Leases
    aside: dict[str, Leases]
    reading: Reading

    @classmethod
    def of(cls, tree: Tree) -> "Before":
        """Look at it."""
        return cls(live(tree), aside(tree), reading(tree))


def nothing_is_lost(before: Before, tree: Tree, *, said: str) -> None:
    """Each lease is where it was or in the newest reset, once, as it was; only what `keep_resets` lets go is gone."""
    now, resets = live(tree), aside(tree)
    new = [leases for name, leases in resets.items() if name not in before.aside]
    everywhere = [*now.items(), *(item for leases in new for item in leases.items())]
    assert sorted(everywhere) == sorted(before.live.items()), said
    newest = sorted(before.aside)[-KEPT_RESETS:] if not new else []
    for name in newest:
        assert resets.get(name) == before.aside[name], f"{said}: reset {name} is gone"
    untouched = {key: content for key, content in before.live.items() if key[0] not in NETWORKS}
    assert untouched.items() <= now.items(), f"{said}: a network that nobody named was touched"


def the_marker_is_believable(case: Case, before: Before, tree: Tree, *, said: str) -> None:
    """It is the old one, whole, or what this verb may write; after a crash `clean` is only what was clean before."""
    now = reading(tree)
    if case.judges:
        moved = live(tree) != before.live
        if isinstance(now, Marker) and now.state is State.CLEAN:
            assert now == before.reading, said
            assert not moved, f"{said}: leases were moved under a mark that still says clean"
            return
        was_clean = isinstance(before.reading, Marker) and before.reading.state is State.CLEAN
        written = isinstance(now, Marker) and (now.state, now.boot_id) == (State.RUNNING, THIS)
        removed = isinstance(now, NoMarker) and was_clean
        assert now == before.reading or written or removed, f"{said}: the marker is {now}"
    else:
        assert not isinstance(now, DamagedMarker | NoMarker), said
        assert now.boot_id == THIS, said
        assert live(tree) == before.live, said


def it_is_done_or_told(case: Case, before: Before, tree: Tree, status: int, *, said: str) -> None:
    """Status 0 only where all was done; any other leaves a marker that was not clean where it was."""
    now = reading(tree)
    if case.judges:
        assert not (isinstance(now, Marker) and now.state is State.CLEAN), f"{said}: after boot the disk says clean"
        was_clean = isinstance(before.reading, Marker) and before.reading.state is State.CLEAN
        due = [key for key, content in live(tree).items() if key[0] in NETWORKS and not (was_clean and content)]
        done = not due and isinstance(now, Marker) and now.boot_id == THIS
        assert done or status != 0, f"{said}: status 0, but {due} are left, and the marker is {now}"
        assert done or was_clean or now == before.reading, f"{said}: the marker was {before.reading}, and is {now}"
    elif status == 0:
        assert isinstance(now, Marker), said
        assert now.state is State.CLEAN, said


def the_next_boot_mends_it(before: Before, tree: Tree, *, said: str) -> Outcome:
    """Whatever a crash left, the next boot judges by the marker, clears what is due, and leaves the usual state."""
    tree.config(f"keep_resets: {KEPT_RESETS}\n")
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
