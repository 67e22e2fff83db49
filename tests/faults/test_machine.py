"""A node's life at random, against a simple model: boots, pods, crashes, damage, settings, two programs at once."""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from tempfile import mkdtemp
from typing import Final

import pytest
from conftest import Kept, Systemd, Tree
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from machine import NOBODY, SETUID, Machine

from cni_lease_reset import service
from cni_lease_reset.commands import recover, restore
from cni_lease_reset.core.errors import BusyError, CniLeaseResetError
from cni_lease_reset.core.findings import Outcome, Result
from cni_lease_reset.core.model import BootId, ClearWhen, Marker, NoMarker, State, Verdict
from cni_lease_reset.edges import lock, record
from cni_lease_reset.edges.lock import only_one

from . import report
from .cases import aside, reading
from .conftest import Figures

NETWORKS: Final = ("k8s-pod-network", "cbr0", "not-ours")
STEPS: Final = 50  # an example
POOL: Final = 30  # addresses of each family and network
_CHANGING: Final = ("rename", "unlink", "mkdir", "rmdir", "fsync")

AN_HOUR_AGO: Final = time.time_ns() - 3_600_000_000_000

steps = 0


class Kind(Enum):
    """How a living pod is known."""

    SHIM = "by its shim"
    ADDRESS = "by its address alone"
    STARTING = "by the plugin at work"


class CrashError(BaseException):
    """The program is no more."""


@contextmanager
def crash_at(number: int) -> Iterator[None]:
    """Crash before the so many-th call that changes a file; where there are fewer, not at all."""
    real = {name: getattr(os, name) for name in _CHANGING}
    left = number

    def counted(name: str) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            nonlocal left
            if left == 0:
                raise CrashError(name)
            left -= 1
            return real[name](*arguments, **options)

        return call

    for name in _CHANGING:
        setattr(os, name, counted(name))
    try:
        yield
    except CrashError:
        pass
    finally:
        for name, function in real.items():
            setattr(os, name, function)


class NodeLife(RuleBasedStateMachine):
    """What an operator knows of the node, beside what is on its disk."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = Tree(Path(mkdtemp(prefix="f", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)))
        self.kernel = 0
        self.machine = Machine(self.tree.root)
        self.serial = 0  # of pods
        self.impostors = 0  # that run now
        self.pods: dict[int, tuple[str, str, int]] = {}  # those that live: network, address, inode
        self.known: set[int] = set()  # the inodes of all leases that must be somewhere
        self.up = False  # the container runtime
        self.ran = False  # boot, under this kernel
        self.clean = False  # the last shutdown that our unit saw the end of is recorded, and no boot has taken it
        self.moment = 0  # leases and marks are dated by it
        self.clear_when, self.keep, self.valid = ClearWhen.UNCLEAN, 2, True
        self.limit: int | None = 10
        self._next_kernel()
        self._configure()

    def teardown(self) -> None:
        shutil.rmtree(self.tree.root)

    # What the disk says.

    def _live(self) -> dict[int, tuple[str, str]]:
        found: dict[int, tuple[str, str]] = {}
        for network in NETWORKS:
            try:
                entries = list(os.scandir(self.tree.data / network))
            except FileNotFoundError:
                continue
            found |= {entry.inode(): (network, entry.name) for entry in entries if entry.name[0] in "1f"}
        return found

    def _aside(self) -> dict[str, set[int]]:
        found: dict[str, set[int]] = {}
        for path in (self.tree.state / "set-aside").glob("*/*/*"):
            found.setdefault(path.parents[1].name, set()).add(path.stat().st_ino)
        return found

    def _next_kernel(self) -> None:
        self.kernel += 1
        self.tree.next_kernel(BootId(f"{self.kernel:08x}-0000-4000-8000-000000000000"))
        self.up = self.ran = False
        for number in self.pods:
            shutil.rmtree(self.tree.root / f"proc/{1000 + number}")
        for number in range(self.impostors):
            shutil.rmtree(self.tree.root / f"proc/{100_001 + number}")
        self.pods, self.impostors = {}, 0

    def _configure(self) -> None:
        limit = "null" if self.limit is None else self.limit
        text = f"clear_when: {self.clear_when}\nmax_kept_leases: {limit}\nkeep_resets: {self.keep}\n"
        self.tree.config(text if self.valid else "network: [x]\n")

    def _systemd(self, *, down: bool = False) -> Systemd:
        return Systemd({"rke2-server.service": "active"} if self.up else {}, down=down)

    # The container runtime and its plugin.

    @rule()
    def the_runtime_starts(self) -> None:
        self.up = True

    @precondition(lambda self: self.up)
    @rule(
        network=st.sampled_from(NETWORKS),
        inet6=st.booleans(),
        count=st.integers(1, 6),
        kind=st.sampled_from(list(Kind)),
    )
    def pods_start(self, network: str, inet6: bool, count: int, kind: Kind) -> None:
        for _ in range(count):
            used = {address for name, address in self._live().values() if name == network}
            pool = (f"fd00:52::{n:x}" if inet6 else f"10.52.0.{n}" for n in range(2, 2 + POOL))
            address = next((each for each in pool if each not in used), None)
            if address is None:
                return
            self.serial += 1
            sandbox = f"{self.serial:064x}"
            path = self._dated(self.tree.lease(address, f"{sandbox}\r\neth0", network))
            (self.tree.data / network / "lock").touch()
            self._process(kind, 1000 + self.serial, sandbox, address)
            self.pods[self.serial] = (network, address, path.stat().st_ino)
            self.known.add(path.stat().st_ino)

    def _process(self, kind: Kind, pid: int, sandbox: str, address: str) -> None:
        """What says that a pod lives; one that is being started has neither address nor shim."""
        match kind:
            case Kind.SHIM:
                self.machine.process("containerd-shim-runc-v2", "-namespace", "k8s.io", "-id", sandbox, pid=pid)
            case Kind.ADDRESS:
                self.machine.addresses(self.machine.process("pause", pid=pid, user=NOBODY), address)
            case Kind.STARTING:
                self.machine.process("/opt/cni/bin/bridge", environment=[f"CNI_CONTAINERID={sandbox}"], pid=pid)

    @rule(data=st.data(), user=st.sampled_from([NOBODY, SETUID]))
    def somebody_calls_himself_a_shim(self, data: st.DataObject, user: tuple[int, ...]) -> None:
        """With the id of a pod that may be dead: it keeps no lease, and refuses nothing."""
        sandbox = f"{data.draw(st.integers(1, max(1, self.serial))):064x}"
        self.impostors += 1
        shim = ("containerd-shim-runc-v2", "-namespace", "k8s.io", "-id", sandbox, "-address", "/run/x/y.sock")
        self.machine.process(*shim, user=user, pid=100_000 + self.impostors, environment=[f"CNI_CONTAINERID={sandbox}"])

    @precondition(lambda self: self.pods)
    @rule(data=st.data(), forgotten=st.booleans())
    def a_pod_stops(self, data: st.DataObject, forgotten: bool) -> None:
        number = data.draw(st.sampled_from(sorted(self.pods)))
        network, address, inode = self.pods.pop(number)
        shutil.rmtree(self.tree.root / f"proc/{1000 + number}")
        if not forgotten:  # else nobody sends the DEL: a leak
            (self.tree.data / network / address).unlink()
            self.known.remove(inode)

    # The ways down.

    @rule(torn=st.integers(0, 4))
    def the_power_is_cut(self, torn: int) -> None:
        live = self._live()
        for inode in sorted(live)[len(live) - torn if torn <= len(live) else 0 :]:
            path = self.tree.data / live[inode][0] / live[inode][1]
            when = path.stat().st_mtime_ns
            path.write_text("")
            os.utime(path, ns=(when, when))
        self._next_kernel()

    @rule(crash=st.none() | st.integers(0, 8))
    def it_is_shut_down(self, crash: int | None) -> None:
        self.up = False
        if self.ran:  # a start that failed gets no ExecStop, but a person may call it
            self._shut_down(1000 if crash is None else crash)
        self._next_kernel()

    def _shut_down(self, crash: int) -> None:
        was = self._says()
        with crash_at(crash):
            marked = service.shutdown(self.tree.node, self._systemd(down=True), Kept())
            assert marked == (was == self._ours("running")), "only what was marked as running is marked as clean"
            assert self._says() == (self._ours("clean") if marked else was)
        assert self._says() in (was, self._ours("clean"))
        if self._says() != was:
            self.clean = True
            self._dated(self.tree.state / "marker")

    @rule()
    def it_reboots(self) -> None:
        self._boot()
        self.it_is_shut_down(None)
        self._boot()
        self.the_runtime_starts()

    @rule(network=st.sampled_from(NETWORKS), count=st.integers(0, 2), power=st.booleans())
    def a_shutdown_is_cancelled(self, network: str, count: int, power: bool) -> None:
        """After our part of it; the runtime is started again, and our unit is not."""
        self._boot()
        self._shut_down(1000)
        self.up = True
        self.pods_start(network=network, inet6=False, count=count, kind=Kind.SHIM)
        if power:
            self.the_power_is_cut(torn=0)
            self._boot()

    @precondition(lambda self: self.ran)
    @rule(back=st.booleans())
    def the_service_is_stopped(self, back: bool) -> None:
        """By hand or by a package update, and started again, or not; or the kernel stays: a soft-reboot."""
        before, was = self._live(), self._says()
        assert not service.shutdown(self.tree.node, self._systemd(down=False), Kept())
        assert self._says() == (None if was == self._ours("running") else was)
        if back:
            self._is_the_same_boot(self._boot())
        assert self._live() == before

    def _is_the_same_boot(self, outcome: Outcome | None) -> None:
        assert outcome is not None
        assert outcome.judgement.verdict is Verdict.SAME_BOOT

    def _dated(self, path: Path) -> Path:
        """Date a file; each is newer than the one before, and old enough for recover."""
        self.moment += 1
        os.utime(path, ns=(AN_HOUR_AGO + self.moment * 1_000_000, AN_HOUR_AGO + self.moment * 1_000_000))
        return path

    def _ours(self, state: str) -> tuple[str, str]:
        return (state, self.tree.node.boot_id())

    def _says(self) -> tuple[str, str] | str | None:
        """What the marker says."""
        match reading(self.tree):
            case Marker(state=state, boot_id=boot_id):
                return (state, boot_id)
            case NoMarker():
                return None
        return "damaged"

    # The way up.

    def _verdict(self) -> Verdict:
        """What boot should say."""
        said = self._says()
        if self.ran or said in (self._ours("running"), self._ours("clean")):
            return Verdict.SAME_BOOT
        if said is None or said == "damaged":
            return Verdict.UNKNOWN if said is None else Verdict.DAMAGED
        if said[0] == "running":
            return Verdict.UNCLEAN
        assert self.clean, "clean only after a recorded clean shutdown"
        mark = (self.tree.state / "marker").stat().st_mtime_ns
        found = [self.tree.data / network / address for network, address in self._live().values()]
        newer = any(each.stat().st_mtime_ns > mark for each in found if each.parent.name in NETWORKS[:2])
        return Verdict.UNKNOWN if newer and self.valid else Verdict.CLEAN

    def _boot(self, crash: int = 1000) -> Outcome | None:
        """Run `boot` and compare what it left with the model."""
        resets, was, expected = self._aside(), self._says(), self._verdict()
        was_done = self._is_done()
        outcome: list[Outcome] = []
        with crash_at(crash):
            outcome.append(service.boot(self.tree.node, self._systemd(), Kept()))
        self._only_old_resets_go(resets)
        if not outcome:
            self.ran = self.ran or (self.tree.root / "run/cni-lease-reset/boot").exists()
            assert self._says() in (was, None, self._ours("running"))
            self.clean = self.clean and self._says() == was
            return None
        self.ran, self.clean = True, False
        verdict, result = outcome[0].judgement.verdict, outcome[0].result
        assert verdict is expected
        done = outcome[0].done
        if verdict is Verdict.SAME_BOOT:
            assert result is Result.NOTHING_DUE
            done = was_done
        assert self._says() == (self._ours("running") if done else None), "running means done"
        if done and verdict is not Verdict.SAME_BOOT:
            self._enough_is_free(verdict)
        return outcome[0]

    def _is_done(self) -> bool:
        """Whether this boot was: its mark says so, or /run."""
        outcome = record.read(self.tree.node).of(self.tree.node.boot_id())
        return self._says() in (self._ours("running"), self._ours("clean")) or (outcome is not None and outcome.done)

    def _only_old_resets_go(self, before: dict[str, set[int]]) -> None:
        after = self._aside()
        seen = set(self._live()).union(*after.values())
        old = set().union(*(leases for name, leases in before.items() if name not in self._kept({*before, *after})))
        assert self.known - seen <= old, "only what keep_resets lets go may vanish"
        self.known &= seen

    def _kept(self, resets: set[str]) -> set[str]:
        """Of the newest boots that made any, the first one and the newest twenty."""
        in_order = sorted(resets, key=lambda name: int(name.partition("-")[0]))
        boots = list(dict.fromkeys(name[-8:] for name in reversed(in_order)))[: self.keep]
        of_each = [[name for name in in_order if name.endswith(boot)] for boot in boots]
        return {name for of_one in of_each for name in (of_one[0], *of_one[-20:])}

    def _enough_is_free(self, verdict: Verdict) -> None:
        if self.clear_when is ClearWhen.NEVER:
            return
        for network in NETWORKS[:2]:
            left = [each for each in self._live().values() if each[0] == network]
            if verdict is not Verdict.CLEAN or self.clear_when is ClearWhen.ALWAYS:
                assert not left
            assert all((self.tree.data / network / address).stat().st_size for _, address in left), "torn ones go"
            for inet6 in (False, True):
                kept = sum((":" in address) is inet6 for _, address in left)
                assert self.limit is None or kept <= self.limit, "at least pool - max_kept_leases addresses are free"

    @rule(starts=st.booleans())
    def it_boots(self, starts: bool) -> None:
        self._boot()
        self.up = self.up or starts

    @rule()
    def it_boots_twice(self) -> None:
        """Twice is once."""
        self._boot()
        before, resets, marker = self._live(), aside(self.tree), reading(self.tree)
        self._is_the_same_boot(self._boot())
        assert (self._live(), aside(self.tree), reading(self.tree)) == (before, resets, marker)

    @rule(crash=st.integers(0, 60), power=st.booleans(), torn=st.integers(0, 4))
    def boot_crashes(self, crash: int, power: bool, torn: int) -> None:
        self._boot(crash)
        if power:
            self.the_power_is_cut(torn=torn)
        else:
            self.up = True  # the runtime starts whatever becomes of us

    @rule()
    def boot_meets_another_program(self) -> None:
        before = self._live()
        with only_one(self.tree.node, create=True):
            if self._verdict() is Verdict.SAME_BOOT:
                self._boot()  # it needs no lock
            else:
                with pytest.raises(BusyError):
                    service.boot(self.tree.node, self._systemd(), Kept())
                self.ran, self.clean = True, False
                assert self._says() is None, "no older marker speaks for this boot"
        assert self._live() == before

    @rule(network=st.sampled_from(NETWORKS[:2]))
    def boot_meets_a_plugin_at_work(self, network: str) -> None:
        (self.tree.data / network).mkdir(parents=True, exist_ok=True)
        before = {inode for inode, each in self._live().items() if each[0] == network}
        with (self.tree.data / network / "lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            self._boot()
        assert before <= self._live().keys(), "a network whose lock is held is left alone"

    # What people and disks do.

    @rule(damage=st.sampled_from([None, b"", b"\0" * 170, b"state=clean\n"]) | st.binary(max_size=30))
    def the_marker_is_damaged(self, damage: bytes | None) -> None:
        path = self.tree.state / "marker"
        if damage is None:
            path.unlink(missing_ok=True)
        elif self.tree.state.exists():
            path.write_bytes(damage)
        self.clean = False

    @rule(
        clear_when=st.sampled_from(list(ClearWhen)),
        limit=st.none() | st.integers(0, 20),
        keep=st.integers(1, 4),
        valid=st.sampled_from([True, True, True, False]),
    )
    def the_configuration_changes(self, clear_when: ClearWhen, limit: int | None, keep: int, valid: bool) -> None:
        self.clear_when, self.limit, self.keep, self.valid = clear_when, limit, keep, valid
        self._configure()

    @precondition(lambda self: self.valid)
    @rule(unattended=st.booleans())
    def it_is_recovered(self, unattended: bool) -> None:
        marker = reading(self.tree)
        crowded = {name for name in NETWORKS[:2] if self._is_crowded(name)} if unattended else {*NETWORKS[:2]}
        before, resets = self._live(), self._aside()
        assert recover.work(self.tree.node, Kept(), lambda _line: None, crowded=unattended) is None
        owned = {inode for _, _, inode in self.pods.values()}
        addresses = {address for _, address, _ in self.pods.values()}  # in whichever network
        after = self._live()
        left = {inode for inode, each in after.items() if each[0] in crowded and each[1] not in addresses}
        assert left <= owned, "what nobody alive owns is set aside"
        others = {inode for inode, each in before.items() if each[0] not in crowded}
        assert others <= after.keys(), "no other network is touched"
        assert reading(self.tree) == marker
        self._only_old_resets_go(resets)

    def _is_crowded(self, network: str) -> bool:
        directory = self.tree.data / network
        names = [address for name, address in self._live().values() if name == network]
        whole = [each for each in names if (directory / each).stat().st_size]
        most = max(sum(":" in each for each in whole), sum(":" not in each for each in whole))
        return self.limit is not None and most > self.limit

    @precondition(lambda self: self.valid)
    @rule(data=st.data())
    def a_reset_is_put_back(self, data: st.DataObject) -> None:
        resets = self._aside()
        if not resets:
            return
        try:
            restore.restore(self.tree.node, Kept(), data.draw(st.sampled_from(sorted(resets))))
        except CniLeaseResetError as error:
            raise AssertionError from error

    # What holds at any time.

    @invariant()
    def no_living_pods_lease_is_ever_moved(self) -> None:
        global steps
        steps += 1
        live = self._live()
        for network, address, inode in self.pods.values():
            assert live.get(inode) == (network, address)

    @invariant()
    def on_disk_is_what_lives_leaked_and_is_set_aside(self) -> None:
        resets = self._aside()
        everywhere = [*self._live(), *(inode for leases in resets.values() for inode in leases)]
        assert len(everywhere) == len(set(everywhere)), "once"
        assert set(everywhere) == self.known, "nothing vanishes, nothing comes from nowhere"

    @invariant()
    def the_disk_says_clean_only_after_a_clean_shutdown(self) -> None:
        now = reading(self.tree)
        assert self.clean or not (isinstance(now, Marker) and now.state is State.CLEAN)


def test_a_nodes_life_follows_the_model(figures: Figures, long: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "OURS", 0)
    least = 200_000 if long else 10_000
    run_state_machine_as_test(
        NodeLife,
        settings=settings(
            max_examples=least // 40,  # some end before their last step
            stateful_step_count=STEPS,
            derandomize=not long,  # the short run is the same each time
            database=None,
            deadline=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
    figures.add(report.STEPS, steps)
    assert steps >= least
