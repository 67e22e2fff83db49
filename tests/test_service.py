"""The sentence, end to end, on trees, with the real host-local plugin."""

import errno
import os
from pathlib import Path
from typing import NoReturn

import pytest
from conftest import NEXT, OTHER, SANDBOX, THIS, HostLocal, Kept, Systemd, Tree, boot, failing
from programs import running

from cni_lease_reset import service
from cni_lease_reset.core.errors import BusyError, InputOutputError
from cni_lease_reset.edges import durable, leases, lock, record


def test_an_exhausted_pool_is_free_after_a_power_cut(tree: Tree, journal: Kept, host_local: HostLocal) -> None:
    tree.mark("running")
    assert host_local.exhaust() == 253  # all but the gateway
    assert boot(tree, journal).total.cleared == 253
    fields = journal.verdicts[0]
    assert (fields["CNI_VERDICT"], fields["CNI_LEASES_FOUND"], fields["CNI_LEASES_KEPT"]) == ("unclean", "253", "0")
    assert len(tree.set_aside()) == 253
    assert host_local.add("new") == "10.52.0.2"  # behind last_reserved_ip, round the corner
    assert tree.marker().split("\n")[1:3] == ["state=running", f"boot_id={THIS}"]


def test_a_clean_reboot_keeps_all_but_torn_leases(tree: Tree, journal: Kept) -> None:
    tree.mark("clean")
    tree.lease("10.52.0.2")
    tree.lease("10.52.0.3", "")
    tree.lease("10.52.0.4", "\0" * 70)
    outcome = boot(tree, journal)
    assert (outcome.judgement.verdict, outcome.total.found, outcome.total.cleared, outcome.total.torn) == (
        "clean",
        3,
        2,
        2,
    )
    assert tree.leases() == {"10.52.0.2"}
    assert "state=running" in tree.marker()


def test_a_crowded_network_is_cleared_after_a_clean_reboot(tree: Tree, journal: Kept) -> None:
    tree.mark("clean")
    for number in range(111):
        tree.lease(f"10.52.0.{number + 1}")
    assert boot(tree, journal).total.cleared == 111


@pytest.mark.parametrize("mark", ["running", "clean", None])
def test_torn_leases_are_counted_however_the_last_boot_ended(tree: Tree, journal: Kept, mark: str | None) -> None:
    if mark is not None:
        tree.mark(mark)
    tree.lease("10.52.0.2")
    tree.lease("10.52.0.3", "")
    tree.lease("10.52.0.4", "\0" * 70)
    tree.lease("fd00::2", "\0")
    boot(tree, journal)
    assert (journal.verdicts[0]["CNI_LEASES_FOUND"], journal.verdicts[0]["CNI_LEASES_TORN"]) == ("4", "3")


@pytest.mark.parametrize("prepare", ["mark", "damage", "nothing"])
def test_what_cannot_be_proven_clean_is_cleared(tree: Tree, journal: Kept, prepare: str) -> None:
    if prepare == "mark":
        tree.mark("running")
    elif prepare == "damage":
        tree.state.mkdir(parents=True)
        (tree.state / "marker").write_bytes(b"")
    tree.lease("10.52.0.2")
    assert boot(tree, journal).total.cleared == 1


def test_a_shutdown_that_cannot_read_the_marker_is_an_error(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot(tree, journal)
    before = tree.marker()

    def failing(name: str, _limit: int, *, parent: int) -> NoReturn:
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
    assert boot(tree, journal).total.cleared == 1


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
    assert tree.marker() == ""
    tree.next_kernel(NEXT)
    assert boot(tree, journal).total.cleared == 1


@pytest.mark.parametrize("what", ["running", "clean", "damaged"])
def test_the_marker_is_taken_though_the_configuration_is_invalid(tree: Tree, journal: Kept, what: str) -> None:
    tree.mark(what)
    tree.lease("10.52.0.2")
    tree.config("network: [x]\n")
    outcome = boot(tree, journal)
    assert outcome.result == "misconfigured"
    assert "config.yaml:1: unknown setting 'network', did you mean 'networks'?" in outcome.why
    assert tree.marker() == ""


@pytest.mark.parametrize("what", ["running", "clean", "damaged"])
def test_the_marker_is_taken_before_our_lock_is_waited_for(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    tree.mark(what)
    tree.lease("10.52.0.2")
    monkeypatch.setattr(lock, "OURS", 0.05)
    with lock.only_one(tree.node), pytest.raises(BusyError):
        service.boot(tree.node, Systemd(), journal)
    assert tree.marker() == ""
    assert boot(tree, journal).judgement.verdict == "same-boot", "pods may have come up since"
    tree.next_kernel(NEXT)
    assert boot(tree, journal).total.cleared == 1


def test_our_lock_is_waited_for(tree: Tree, journal: Kept) -> None:
    tree.mark("running")
    tree.lease("10.52.0.2")
    with running("flock", str(tree.state), "sh", "-c", "echo held; sleep 0.5"):
        assert boot(tree, journal).total.cleared == 1


def test_a_shutdown_marks_this_boot_as_clean(tree: Tree, journal: Kept) -> None:
    boot(tree, journal)
    assert service.shutdown(tree.node, Systemd(), journal)
    assert "state=clean" in tree.marker()
    tree.next_kernel(NEXT)
    assert boot(tree, journal).judgement.verdict == "clean"


@pytest.mark.parametrize(
    ("down", "why"),
    [
        (False, "the system is not going down, only this service stops"),
        (None, "systemd cannot be asked whether the system goes down (no bus)"),
    ],
)
def test_a_stop_that_is_no_shutdown_removes_the_mark_and_a_start_brings_it_back(
    tree: Tree, journal: Kept, down: bool | None, why: str
) -> None:
    boot(tree, journal)
    with lock.only_one(tree.node):  # whoever restarts the unit beside recover has his mark, too
        assert not service.shutdown(tree.node, Systemd(down=down, remark="no bus"), journal)
        assert tree.marker() == ""
        assert journal.entries[-1].message == (
            f'Not marked as clean: {why}; the marker no longer says "running", a start of this unit brings it back.'
        )
        tree.config("network: [a typo]\n")
        assert boot(tree, journal).result == "nothing-due"
    assert tree.marker().split("\n")[1:3] == ["state=running", f"boot_id={THIS}"]


def test_a_start_brings_back_no_mark_of_a_boot_that_was_not_done(tree: Tree, journal: Kept) -> None:
    tree.mark("clean")
    tree.lease("10.52.0.2", "")
    assert boot(tree, journal, Systemd({"k3s.service": "active"})).result == "refused"
    outcome = boot(tree, journal)
    assert (outcome.judgement.verdict, outcome.result, tree.marker()) == ("same-boot", "nothing-due", "")
    assert outcome.why == (
        "this boot has not done all that was due; unless it is still at work, the next one makes up for it"
    )
    assert journal.entries[-1].priority == 6
    assert not service.shutdown(tree.node, Systemd(), journal)
    tree.next_kernel(NEXT)
    assert boot(tree, journal).judgement.verdict == "unknown", "nobody is told of a crash that never was"


def test_a_start_after_a_cancelled_shutdown_marks_this_boot_as_running(tree: Tree, journal: Kept) -> None:
    boot(tree, journal)
    assert service.shutdown(tree.node, Systemd(), journal)
    assert boot(tree, journal).judgement.verdict == "same-boot"
    assert "state=running" in tree.marker()


def test_an_older_marker_that_came_back_does_not_speak_for_this_boot(tree: Tree, journal: Kept) -> None:
    boot(tree, journal)
    tree.mark("clean", OTHER)  # out of a backup, say
    boot(tree, journal)
    assert f"boot_id={THIS}" in tree.marker()
    record.write(tree.node, THIS)  # a boot that was killed half-way
    tree.mark("clean", OTHER)
    boot(tree, journal)
    assert tree.marker() == ""


def test_a_marker_that_cannot_be_brought_back_fails_no_start(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot(tree, journal)
    service.shutdown(tree.node, Systemd(down=False), journal)
    failing("rename", monkeypatch, lambda _arguments: True, errno.ENOSPC)
    outcome = boot(tree, journal)
    assert outcome.result == "nothing-due"
    assert [each.text for each in outcome.remarks] == [
        "The marker stays as it is: 'marker.new': No space left on device, ignoring"
    ]


def test_a_lock_that_is_held_at_shutdown_costs_the_mark_and_tells_of_no_crash(
    tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot(tree, journal)
    monkeypatch.setattr(lock, "SHUTDOWN", 0.05)
    with lock.only_one(tree.node), pytest.raises(BusyError):
        service.shutdown(tree.node, Systemd(), journal)
    assert tree.marker() == ""


def test_a_shutdown_waits_for_our_lock(tree: Tree, journal: Kept) -> None:
    boot(tree, journal)
    with running("flock", str(tree.state), "sh", "-c", "echo held; sleep 0.5"):
        assert service.shutdown(tree.node, Systemd(), journal)
    assert "state=clean" in tree.marker()


@pytest.mark.parametrize(("seconds", "verdict"), [(-1, "clean"), (0, "clean"), (1, "unknown")])
@pytest.mark.parametrize("content", [SANDBOX, ""])
def test_a_newer_lease_disproves_a_clean_mark(
    tree: Tree, journal: Kept, seconds: int, verdict: str, content: str
) -> None:
    """After a boot in which our unit did not run, or a shutdown that was cancelled."""
    tree.mark("clean")
    os.utime(tree.state / "marker", (1_800_000_000, 1_800_000_000))
    tree.lease("10.52.0.3")
    lease = tree.lease("10.52.0.2", content)
    os.utime(lease, (1_800_000_000 + seconds, 1_800_000_000 + seconds))
    outcome = boot(tree, journal)
    if verdict == "clean":
        assert (outcome.judgement.verdict, outcome.total.cleared) == ("clean", int(not content))
        return
    assert (outcome.judgement.verdict, outcome.result, outcome.total.cleared) == ("unknown", "cleared", 2)
    assert outcome.judgement.why == (
        "lease 10.52.0.2 of k8s-pod-network, written 2027-01-15T08:00:01Z, is newer than the clean mark "
        "of 2026-11-23T06:12:01Z"
    )
    assert journal.entries[-1].message.startswith("Disproved clean mark: 2 leases set aside as ")


def test_a_lease_of_no_time_at_all_disproves_it_too(tree: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """No calendar goes that far, and no file system of the tests: what a file can say is a number of 64 bits."""
    tree.mark("clean")
    tree.lease("10.52.0.2")
    real = leases.parse
    monkeypatch.setattr(leases, "parse", lambda name, content, _: real(name, content, 2.0**62))
    outcome = boot(tree, journal)
    assert "written at no time that a calendar knows, is newer than" in outcome.judgement.why


def test_a_lease_that_no_setting_names_disproves_nothing(tree: Tree, journal: Kept) -> None:
    tree.mark("clean")
    os.utime(tree.state / "marker", (1, 1))
    tree.lease("10.42.0.2", network="other")
    assert boot(tree, journal).judgement.verdict == "clean"


def test_without_a_configuration_no_lease_disproves_the_mark(tree: Tree, journal: Kept) -> None:
    tree.mark("clean")
    os.utime(tree.state / "marker", (1, 1))
    tree.lease("10.52.0.2")
    tree.config("network: [x]\n")
    assert boot(tree, journal).judgement.verdict == "clean"


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
            done.append(f"{name} {_arguments[0]}")  # noqa: B023  called within this turn of the loop
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
            assert "unlink marker" not in done, "only before the mark is taken"
    assert points >= 3


def test_a_shutdown_without_a_marker_changes_nothing(tree: Tree, journal: Kept) -> None:
    tree.state.mkdir(parents=True)
    assert not service.shutdown(tree.node, Systemd(), journal)
    assert journal.entries[-1].message == (
        "Not marked as clean: there is no marker, boot could not do all that was due, or somebody removed it."
    )
    assert not (tree.state / "marker").exists()
