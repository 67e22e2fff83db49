"""The sentence, end to end, on trees, with the real host-local plugin."""

import errno
import os
from pathlib import Path
from typing import NoReturn

import pytest
from conftest import NEXT, OTHER, THIS, HostLocal, Kept, Systemd, Tree, boot

from cni_lease_reset import service
from cni_lease_reset.core.errors import InputOutputError
from cni_lease_reset.edges import durable, leases


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
    assert OTHER in tree.marker(), "the marker stays as it is"
    tree.next_kernel(NEXT)
    assert boot(tree, journal).total.cleared == 1


def test_a_clean_mark_is_used_up_though_the_configuration_is_invalid(tree: Tree, journal: Kept) -> None:
    tree.mark("clean")
    tree.lease("10.52.0.2")
    tree.config("network: [x]\n")
    outcome = boot(tree, journal)
    assert (outcome.judgement.verdict, outcome.result) == ("clean", "misconfigured")
    assert "config.yaml:1: unknown setting 'network', did you mean 'networks'?" in outcome.why
    assert "state=running" in tree.marker()


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


def test_a_shutdown_without_a_marker_changes_nothing(tree: Tree, journal: Kept) -> None:
    tree.state.mkdir(parents=True)
    assert not service.shutdown(tree.node, Systemd(), journal)
    assert journal.entries[-1].message == "Marker left as it is: there is no marker, boot did not complete."
    assert not (tree.state / "marker").exists()
