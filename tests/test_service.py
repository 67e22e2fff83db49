"""The sentence, end to end, on trees, with the real host-local plugin."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

import pytest
from conftest import NEXT, OTHER, SANDBOX, THIS, HostLocal, Kept, Systemd, Tree, boot

from cni_lease_reset import service
from cni_lease_reset.core.errors import BusyError, InputOutputError
from cni_lease_reset.core.model import BootId, Outcome
from cni_lease_reset.edges import durable, leases, record
from cni_lease_reset.edges.lock import only_one


def test_an_exhausted_pool_is_free_after_a_power_cut(tree: Tree, journal: Kept, host_local: HostLocal) -> None:
    tree.mark("running")
    assert host_local.exhaust() == 253  # all but the gateway
    assert boot(tree, journal).cleared == 253
    fields = journal.verdicts[0]
    assert (fields["CNI_VERDICT"], fields["CNI_LEASES_FOUND"], fields["CNI_LEASES_KEPT"]) == ("unclean", "253", "0")
    assert len(tree.set_aside()) == 253
    assert host_local.add("new") == "10.52.0.2"  # behind last_reserved_ip, round the corner
    assert tree.marker().split("\n")[1:3] == ["state=running", f"boot_id={THIS}"]


def test_round_robin_goes_on_behind_the_last_reserved_address(tree: Tree, journal: Kept, host_local: HostLocal) -> None:
    tree.mark("running")
    assert [host_local.add(f"old{n}") for n in range(3)] == ["10.52.0.2", "10.52.0.3", "10.52.0.4"]
    boot(tree, journal)
    assert host_local.add("new") == "10.52.0.5"


def test_a_late_del_of_an_old_sandbox_changes_nothing(tree: Tree, journal: Kept, host_local: HostLocal) -> None:
    tree.mark("running")
    host_local.add("old")
    boot(tree, journal)
    address = host_local.add("new")
    host_local.delete("old")
    assert tree.leases() == {address}


def test_both_address_families_are_set_aside(tree: Tree, journal: Kept) -> None:
    tree.mark("running")
    HostLocal(tree, ("10.52.0.0/24", "fd00:52::/64")).add("old")
    assert boot(tree, journal).cleared == 2
    assert {"10.52.0.2", "fd00:52::2"} == tree.set_aside()
    assert {path.name for path in tree.network.iterdir()} == {"last_reserved_ip.0", "last_reserved_ip.1", "lock"}


def test_a_clean_reboot_keeps_all_but_torn_leases(tree: Tree, journal: Kept) -> None:
    tree.mark("clean")
    tree.lease("10.52.0.2")
    tree.lease("10.52.0.3", "")
    tree.lease("10.52.0.4", "\0" * 70)
    outcome = boot(tree, journal)
    assert (outcome.judgement.verdict, outcome.found, outcome.cleared, outcome.torn) == ("clean", 3, 2, 2)
    assert tree.leases() == {"10.52.0.2"}
    assert "state=running" in tree.marker()


def test_a_crowded_network_is_cleared_after_a_clean_reboot(tree: Tree, journal: Kept) -> None:
    tree.mark("clean")
    for number in range(111):
        tree.lease(f"10.52.0.{number + 1}")
    assert boot(tree, journal).cleared == 111


@pytest.mark.parametrize("prepare", ["mark", "damage", "nothing"])
def test_what_cannot_be_proven_clean_is_cleared(tree: Tree, journal: Kept, prepare: str) -> None:
    if prepare == "mark":
        tree.mark("running")
    elif prepare == "damage":
        tree.state.mkdir(parents=True)
        (tree.state / "marker").write_bytes(b"")
    tree.lease("10.52.0.2")
    assert boot(tree, journal).cleared == 1


def test_the_second_boot_under_a_kernel_touches_nothing(tree: Tree, journal: Kept) -> None:
    tree.mark("running")
    boot(tree, journal)
    tree.lease("10.52.0.9")
    assert boot(tree, journal).judgement.verdict == "same-boot"
    assert tree.leases() == {"10.52.0.9"}
    noted = record.read(tree.node)
    assert isinstance(noted, Outcome)
    assert noted.judgement.verdict == "unclean", "the boot's own outcome stays"


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.EMFILE])
def test_a_mark_that_cannot_be_read_may_be_clean_and_does_not_stay(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    tree.mark("clean")
    tree.lease("10.52.0.2")
    tree.config("network: [mistyped]\n")  # so that nothing is written over it
    read = durable.read

    def failing(parent: int, name: str, limit: int) -> bytes:
        if name == "marker":
            raise OSError(code, os.strerror(code), name)
        return read(parent, name, limit)

    with monkeypatch.context() as patch:
        patch.setattr(durable, "read", failing)
        assert boot(tree, journal).judgement.verdict == "damaged"
    assert not (tree.state / "marker").exists()
    tree.next_kernel(NEXT)
    assert boot(tree, journal).judgement.verdict == "unknown", "never clean: that boot may have crashed"


def test_a_mark_that_stays_where_nothing_can_be_judged_is_told(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.mark("clean")
    (tree.root / "proc/sys/kernel/random/boot_id").unlink()

    def failing(_parent: int, name: str) -> NoReturn:
        raise OSError(errno.EROFS, "Read-only file system", name)

    monkeypatch.setattr(durable, "remove", failing)
    with pytest.raises(OSError, match="the clean mark cannot be used up: 'marker': Read-only file system"):
        service.boot(tree.node, Systemd(), journal)


def test_a_shutdown_that_cannot_read_the_marker_is_an_error(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot(tree, journal)
    before = tree.marker()

    def failing(_parent: int, name: str, _limit: int) -> NoReturn:
        raise OSError(errno.EIO, "Input/output error", name)

    with monkeypatch.context() as patch:
        patch.setattr(durable, "read", failing)
        with pytest.raises(InputOutputError, match="stays as it is: reading it fails: Input/output error"):
            service.shutdown(tree.node, Systemd(), journal)
    assert tree.marker() == before


def test_a_boot_that_was_killed_half_way_has_had_its_moment(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")

    def killed(*_arguments: object, **_options: object) -> NoReturn:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(leases, "survey", killed)
        with pytest.raises(SystemExit):
            service.boot(tree.node, Systemd(), journal)
    assert boot(tree, journal).judgement.verdict == "same-boot", "pods may have come up since"
    assert tree.leases() == {"10.52.0.2"}
    tree.next_kernel(NEXT)
    assert boot(tree, journal).cleared == 1


def test_a_second_boot_after_a_failed_one_spares_living_pods_and_the_next_kernel_clears(
    tree: Tree, journal: Kept
) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    tree.config("network: [x]\n")
    assert boot(tree, journal).result == "misconfigured"
    tree.config("networks: [k8s-pod-network]\n")
    assert boot(tree, journal).judgement.verdict == "same-boot"
    assert tree.leases() == {"10.52.0.2"}
    assert OTHER in tree.marker(), "the marker stays as it is"
    tree.next_kernel(NEXT)
    assert boot(tree, journal).cleared == 1


@pytest.mark.parametrize("state", ["active", "activating", "deactivating", "reloading", "maintenance"])
def test_nothing_is_set_aside_while_a_unit_is_up(tree: Tree, journal: Kept, state: str) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    outcome = boot(tree, journal, Systemd({"rke2-server.service": state}))
    assert (outcome.result, outcome.why) == ("refused", f"rke2-server.service is {state}, pods may live")
    assert tree.leases() == {"10.52.0.2"}
    assert OTHER in tree.marker()


def test_nothing_is_set_aside_while_a_pod_lives(tree: Tree, journal: Kept) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    tree.shim()
    outcome = boot(tree, journal)
    assert (outcome.result, outcome.why) == ("refused", f"pod sandbox {SANDBOX[:13]} alive")
    assert tree.leases() == {"10.52.0.2"}


def test_containers_of_another_namespace_are_no_pods(tree: Tree, journal: Kept) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    tree.shim("moby")
    assert boot(tree, journal).result == "cleared"


def test_the_scan_alone_decides_where_systemd_does_not_answer(tree: Tree, journal: Kept) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    outcome = boot(tree, journal, Systemd(down=None, remark="no bus"))
    assert outcome.result == "cleared"
    assert outcome.remarks[0].text == "no bus; relying on the scan for living pods alone"


def test_a_held_lock_leaves_its_network_for_the_next_boot_and_the_others_are_done(tree: Tree, journal: Kept) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    tree.lease("10.53.0.2", network="cbr0")
    (tree.network / "lock").touch()
    holder = (
        "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", holder, str(tree.network / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert boot(tree, journal).result == "failed"
        process.communicate(b"\n")
    assert tree.leases() == {"10.52.0.2"}
    assert tree.leases("cbr0") == set()
    assert OTHER in tree.marker()
    tree.next_kernel(NEXT)
    assert boot(tree, journal).cleared == 1


def test_a_network_beside_ours_is_untouched_and_counted(tree: Tree, journal: Kept) -> None:
    tree.mark("clean")
    for number in range(111):
        tree.lease(f"10.60.0.{number}", network="macvlan-a")
    outcome = boot(tree, journal)
    assert outcome.unlisted == (("macvlan-a", 111),)
    assert "not configured: macvlan-a 111" in journal.entries[-1].message
    assert journal.entries[0].message == "Network macvlan-a holds 111 leases, and no setting names it."
    assert len(tree.leases("macvlan-a")) == 111


@pytest.mark.parametrize("kind", ["symlink", "file"])
def test_what_stands_in_a_networks_place_is_skipped_and_does_not_count(tree: Tree, journal: Kept, kind: str) -> None:
    tree.mark("running")
    elsewhere = tree.lease("10.52.0.2", network="elsewhere")
    if kind == "symlink":
        tree.network.symlink_to("elsewhere")
    else:
        tree.network.write_text("")
    assert boot(tree, journal).result == "nothing-due"
    assert "is skipped" in journal.entries[0].message
    assert elsewhere.exists()
    assert THIS in tree.marker()


def test_what_is_no_lease_stays(tree: Tree, journal: Kept) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    for name in ("last_reserved_ip.0", "lock", "notes.txt", "10.52.0.999", "10.52.0"):
        tree.lease(name, "")
    (tree.network / "10.52.0.7").mkdir()
    os.mkfifo(tree.network / "10.52.0.8")
    (tree.network / "10.52.0.9").symlink_to("/etc/passwd")
    (tree.network / "\udcff\n\x1b[31m").touch()
    boot(tree, journal)
    assert tree.set_aside() == {"10.52.0.2"}


def test_without_a_data_directory_all_is_quiet(tree: Tree, journal: Kept) -> None:
    assert boot(tree, journal).result == "nothing-due"
    assert [entry.priority for entry in journal.entries] == [6]


def test_a_clean_mark_is_used_up_though_the_configuration_is_invalid(tree: Tree, journal: Kept) -> None:
    tree.mark("clean")
    tree.lease("10.52.0.2")
    tree.config("network: [x]\n")
    outcome = boot(tree, journal)
    assert (outcome.judgement.verdict, outcome.result) == ("clean", "misconfigured")
    assert "config.yaml:1: unknown setting 'network', did you mean 'networks'?" in outcome.why
    assert "state=running" in tree.marker()


def test_two_at_once_are_refused(tree: Tree, journal: Kept) -> None:
    tree.mark("running")
    with only_one(tree.node), pytest.raises(BusyError):
        service.boot(tree.node, Systemd(), journal)
    assert OTHER in tree.marker()


def test_nobody_else_can_keep_us_from_working(journal: Kept) -> None:
    """A lock needs a descriptor only, and that a right to read; but everybody may know what the marker says."""
    with TemporaryDirectory(dir="/dev/shm") as root:
        tree = Tree(Path(root))
        tree.root.chmod(0o755)
        tree.mark("clean")
        tree.state.chmod(0o755)
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        lock, read = [*nobody, "flock", f"{tree.state}", "true"], [*nobody, "cat", f"{tree.state}/marker"]
        assert subprocess.run(lock, check=False).returncode == 0
        service.boot(tree.node, Systemd(), journal)
        denied = subprocess.run(lock, check=False, capture_output=True, text=True)
        assert (denied.returncode, "Permission denied" in denied.stderr) == (66, True), denied
        assert subprocess.run(read, check=True, capture_output=True, text=True).stdout == tree.marker()


def test_the_directory_of_another_user_serves_as_it_is(tree: Tree) -> None:
    tree.state.mkdir(parents=True)
    tree.root.chmod(0o755)
    os.chown(tree.state, 4242, 4242)
    tree.state.chmod(0o777)
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-m", "cni_lease_reset"]
    done = subprocess.run([*command, "--root", str(tree.root), "boot"], text=True, capture_output=True, check=False)
    assert (done.returncode, tree.state.stat().st_mode & 0o777) == (0, 0o777), done.stderr


def test_a_run_that_failed_before_it_could_judge_leaves_no_second_chance(tree: Tree, journal: Kept) -> None:
    tree.lease("10.52.0.2")
    tree.state.write_text("in the way")
    with pytest.raises(OSError, match="Not a directory"):
        service.boot(tree.node, Systemd(), journal)
    tree.state.unlink()
    outcome = service.boot(tree.node, Systemd(), journal)  # mended, and started again under living pods
    assert (outcome.judgement.verdict, outcome.cleared) == ("same-boot", 0)
    tree.next_kernel(BootId("44444444-4444-4444-8444-444444444444"))
    assert service.boot(tree.node, Systemd(), journal).cleared == 1


def test_a_second_run_that_fails_so_does_not_forget_the_first(tree: Tree, journal: Kept) -> None:
    tree.mark("running")
    first = service.boot(tree.node, Systemd(), journal)
    (tree.state / "marker").rename(tree.root / "kept")
    tree.state.rename(tree.root / "away")
    tree.state.write_text("in the way")
    with pytest.raises(OSError, match="Not a directory"):
        service.boot(tree.node, Systemd(), journal)
    assert record.read(tree.node) == first


def test_old_resets_beyond_the_limit_are_removed(tree: Tree, journal: Kept) -> None:
    tree.config("keep_resets: 2\n")
    for number in range(4):
        tree.mark("running")
        tree.next_kernel(BootId(f"4444444{number}-4444-4444-8444-444444444444"))
        tree.lease("10.52.0.2")
        boot(tree, journal)
    kept = sorted(path.name.partition("-")[0] for path in (tree.state / "set-aside").iterdir())
    assert kept == ["3", "4"]


def test_a_run_directory_that_cannot_be_written_sets_nothing_aside(tree: Tree, journal: Kept) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    (tree.root / "run").write_text("")
    outcome = boot(tree, journal)
    assert outcome.judgement.verdict == "same-boot", "what cannot be read counts as this boot's: the safe side"
    assert tree.leases() == {"10.52.0.2"}
    assert OTHER in tree.marker()


def test_a_shutdown_marks_this_boot_as_clean(tree: Tree, journal: Kept) -> None:
    boot(tree, journal)
    assert service.shutdown(tree.node, Systemd(), journal)
    assert "state=clean" in tree.marker()
    tree.next_kernel(NEXT)
    assert boot(tree, journal).judgement.verdict == "clean"


@pytest.mark.parametrize("down", [False, None])
def test_a_stop_that_is_no_shutdown_changes_nothing(tree: Tree, journal: Kept, down: bool | None) -> None:
    boot(tree, journal)
    before = tree.marker()
    assert not service.shutdown(tree.node, Systemd(down=down, remark="no bus"), journal)
    assert tree.marker() == before


@pytest.mark.parametrize("text", [None, "", f"state=running\nboot_id={OTHER}\nsince=2026-11-23T06:12:01Z\n"])
def test_a_shutdown_under_another_marker_changes_nothing(tree: Tree, journal: Kept, text: str | None) -> None:
    if text is not None:
        tree.state.mkdir(parents=True)
        (tree.state / "marker").write_text(text)
    assert not service.shutdown(tree.node, Systemd(), journal)
    assert text is None or tree.marker() == text


def test_what_boot_said_of_d_bus_is_not_said_again_at_shutdown(tree: Tree, journal: Kept) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    without = Systemd(remark="no pystemd; asked systemctl instead")
    boot(tree, journal, without)
    assert service.shutdown(tree.node, without, journal)
    assert [entry.message for entry in journal.entries if "systemctl" in entry.message] == [without.remark]


def test_a_second_shutdown_changes_nothing(tree: Tree, journal: Kept) -> None:
    boot(tree, journal)
    assert service.shutdown(tree.node, Systemd(), journal)
    assert not service.shutdown(tree.node, Systemd(), journal)


def test_a_dry_run_changes_nothing(tree: Tree, journal: Kept) -> None:
    tree.mark("clean")
    tree.lease("10.52.0.2", "")
    tree.lease("10.52.0.3")
    before = {path: path.stat().st_mtime_ns for path in sorted(tree.root.rglob("*"))}
    said = service.rehearse(tree.node, Systemd({"k3s.service": "active"}))
    assert said.splitlines()[1:] == [
        "Would set aside: 1 lease of k8s-pod-network (torn leases).",
        "Would be refused: k3s.service is active, pods may live.",
    ]
    assert {path: path.stat().st_mtime_ns for path in sorted(tree.root.rglob("*"))} == before


@pytest.mark.parametrize("verb", ["boot", "shutdown"])
def test_a_crash_at_any_step_never_leaves_a_false_clean_or_loses_a_lease(
    tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException):
        pass

    points = 0
    for crash_at in range(1, 60):
        tree = Tree(tmp_path / str(crash_at))
        tree.mark("clean" if verb == "boot" else "running", OTHER if verb == "boot" else THIS)
        tree.lease("10.52.0.2", "")
        tree.lease("10.52.0.3")
        count = 0
        done: list[str] = []

        def stop(*_arguments: object, name: str, real: object, at: int = crash_at, **options: object) -> object:
            nonlocal count
            count += 1
            if count == at:
                raise Crash(name)
            done.append(name)  # noqa: B023  called within this turn of the loop
            return real(*_arguments, **options)  # type: ignore[operator]

        with monkeypatch.context() as patched:
            for name in ("rename", "unlink", "fsync", "mkdir", "rmdir"):
                real = getattr(os, name)
                patched.setattr(os, name, lambda *a, _n=name, _r=real, **o: stop(*a, name=_n, real=_r, **o))
            try:
                if verb == "boot":
                    service.boot(tree.node, Systemd(), Kept())
                else:
                    service.shutdown(tree.node, Systemd(), Kept())
            except Crash:
                points += 1
            else:
                break
        assert tree.leases() | tree.set_aside() == {"10.52.0.2", "10.52.0.3"}
        tree.next_kernel(NEXT)
        after = service.boot(tree.node, Systemd(), Kept())
        assert tree.leases() | tree.set_aside() == {"10.52.0.2", "10.52.0.3"}
        assert "10.52.0.2" in tree.set_aside()
        if verb == "boot" and after.judgement.verdict == "clean":
            assert "rename" not in done, "only before the rename that uses the mark up"
    assert points >= 3


def test_the_lock_is_host_locals_own(tree: Tree, journal: Kept, host_local: HostLocal) -> None:
    tree.mark("running")
    host_local.add("old")
    with open(tree.network / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert boot(tree, journal).result == "failed"
    assert tree.leases() == {"10.52.0.2"}
