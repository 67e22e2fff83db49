"""What ``status`` shows."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cni_config import conflist
from conftest import GOLDEN, OTHER, SANDBOX, THIS, HostLocal, Kept, Systemd, Tree, failing
from machine import NOBODY, Machine, become_nobody
from programs import command
from reported import done, gathered, shown

from cni_lease_reset import service
from cni_lease_reset.commands import display
from cni_lease_reset.core.findings import Counts, Outcome, Result
from cni_lease_reset.core.model import Judgement, Verdict
from cni_lease_reset.edges import child, record

HOST_LOCAL = {"type": "host-local", "ranges": [[{"subnet": "10.52.0.0/24"}], [{"subnet": "fd00:52::/64"}]]}


@pytest.fixture
def troubled(tree: Tree) -> Tree:
    """A node that crashed twice, did not get rid of its leases, and is about to run out of addresses."""
    judgement = Judgement(Verdict.UNCLEAN, "the last boot never got to mark its shutdown as clean", OTHER)
    networks = {"k8s-pod-network": Counts(220, 0, 220, 3)}
    why = "pod sandbox ababababababa lives (process 4711)"
    record.write(tree.node, THIS, Outcome(THIS, judgement, Result.REFUSED, why, networks=networks, usec=9120))
    tree.mark("running", OTHER)
    tree.shim()
    for number in range(2, 242):
        tree.lease(f"10.52.0.{number}", f"{number:064x}\r\neth0" if number > 9 else f"{SANDBOX}\r\neth0")
    for number in range(2, 10):
        tree.lease(f"fd00:52::{number:x}")
    tree.lease("10.52.0.20", "")
    tree.lease("10.60.0.1", network="macvlan-a")
    conflist(tree, HOST_LOCAL)
    for name, reason, leases in (
        ("2-20261121T040210Z-3f9a1c22", "unclean shutdown", 120),
        ("3-20261122T230507Z-22222222", "more than 110 leases; torn leases", 131),
    ):
        folder = tree.state / "set-aside" / name / "k8s-pod-network"
        folder.mkdir(parents=True)
        (folder.parent / "reason").write_text(f"{reason}\n")
        for number in range(leases):
            (folder / f"10.52.0.{number}").touch()
    (tree.root / "usr/lib/tmpfiles.d").mkdir(parents=True)
    (tree.root / "usr/lib/tmpfiles.d/podman.conf").write_text("# podman\nD! /var/lib/cni/networks\n")
    return tree


def test_a_troubled_node_is_told_in_80_columns(troubled: Tree) -> None:
    shown = command(troubled.node, "status")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout == (GOLDEN / "status.txt").read_text()
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_programs_get_it_all(troubled: Tree) -> None:
    document = json.loads(command(troubled.node, "status", "--json").stdout)
    assert document["networks"] == [
        {
            "name": "k8s-pod-network",
            "ipv4": 240,
            "ipv6": 8,
            "torn": 1,
            "live": 16,
            "leaked": 232,
            "pools": [
                {"family": "ipv4", "size": 253, "leases": 240, "range_set": "10.52.0.1-10.52.0.254"},
                {
                    "family": "ipv6",
                    "size": 2**64 - 2,
                    "leases": 8,
                    "range_set": "fd00:52::1-fd00:52::ffff:ffff:ffff:ffff",
                },
            ],
            "outside": 0,
        }
    ]
    assert set(document["marker"]) == {"state", "boot_id", "since"}
    assert document["resets"][1] == {
        "name": "2-20261121T040210Z-3f9a1c22",
        "leases": 120,
        "time": "2026-11-21T04:02:10Z",
        "reason": "unclean shutdown",
    }
    assert (document["version"], document["pending"], len(document["attention"])) == (1, True, 3)


def test_each_range_set_has_a_line_and_what_lies_in_none_has_one(tree: Tree) -> None:
    ranges = [
        [{"subnet": "10.52.0.0/30"}],
        [{"subnet": f"10.53.{number}.0/28", "rangeStart": f"10.53.{number}.8"} for number in range(4)],
        [{"subnet": "fd00:52::/120"}],
    ]
    conflist(tree, {"type": "host-local", "ranges": ranges})
    for address in ("10.52.0.2", "10.53.0.8", "10.53.3.9", "fd00:52::2", "10.51.0.2", "fd00:51::2"):
        tree.lease(address)
    assert (
        "  IPv4  ████████████████████████████████████████  1 of 1, 100 % full\n"
        "        10.52.0.1-10.52.0.2\n"
        "  IPv4  ██░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░  2 of 28, 7 % full\n"
        "        10.53.0.8-10.53.0.14, 10.53.1.8-10.53.1.14, 10.53.2.8-10.53.2.14,\n"
        "        10.53.3.8-10.53.3.14\n"
        "  IPv6  █░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░  1 of 254, 0 % full\n"
        "        fd00:52::1-fd00:52::ff\n"
        "        2 of another subnet\n"
    ) in shown(tree)
    [stock] = gathered(tree).stocks
    assert stock.outside == 2
    (tree.root / "etc/cni/net.d/10-canal.conflist").unlink()
    assert "another subnet" not in shown(tree)
    assert json.loads(display.as_json(gathered(tree)))["networks"][0]["outside"] is None


def test_a_check_ends_in_3_where_something_needs_attention(troubled: Tree) -> None:
    assert command(troubled.node, "status", "--check").returncode == 3
    assert command(troubled.node, "status", "--check", "--json").returncode == 3


def test_a_check_of_a_node_in_order_ends_in_0(tree: Tree, journal: Kept, host_local: HostLocal) -> None:
    tree.mark("clean")
    service.boot(tree.node, Systemd(), journal)
    tree.shim()
    host_local.add(SANDBOX)
    conflist(tree, HOST_LOCAL)
    checked = command(tree.node, "status", "--check")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "k8s-pod-network                                1       0       0       1       0\n" in checked.stdout
    assert "1 of 253, 0 % full\n" in checked.stdout


def test_what_cannot_be_read_needs_attention(tree: Tree) -> None:
    done(tree)
    assert command(tree.node, "status", "--check").returncode == 0
    tree.config("network: [x]\n")
    assert command(tree.node, "status", "--check").returncode == 3


def test_a_configuration_that_was_mended_is_told_as_mended(tree: Tree) -> None:
    tree.config("network: [x]\n")
    service.boot(tree.node, Systemd(), Kept())
    why = "config.yaml:1: unknown setting 'network', did you mean 'networks'?"
    assert "mended" not in shown(tree)
    [unread] = gathered(tree).unread
    assert unread == f"{why}; shown with the defaults. Mend it, try it with: cni-lease-reset config"
    assert not json.loads(display.as_json(gathered(tree)))["config_valid"]
    tree.config("networks: [x]\n")
    assert f"misconfigured: {why}; mended since" in shown(tree).replace("\n            ", " ")
    assert gathered(tree).unread == ()
    assert json.loads(display.as_json(gathered(tree)))["config_valid"]
    assert not any("cannot be used" in each for each in gathered(tree).attention)


def test_what_lives_and_what_leaks_is_told_as_recover_sorts_it_out(tree: Tree) -> None:
    machine = Machine(tree.root)
    for number in range(2, 8):
        tree.lease(f"10.52.0.{number}", f"{number:064x}\r\neth0")
    machine.process("/usr/bin/conmon", "-c", f"{2:064x}")
    machine.addresses(machine.process("pause", user=NOBODY), "10.52.0.3")
    os.utime(tree.network / "10.52.0.4")  # young: neither
    tree.lease("10.52.0.5", "x" * 5000)  # nobody can say
    tree.lease("10.52.0.6", "")
    report = gathered(tree)
    assert (report.stocks[0].live, report.stocks[0].leaked) == (2, 2)
    assert "6       0       1       2       2\n" in display.as_text(report)
    assert report.unread == ("network k8s-pod-network: no owner can be read in 1 lease",)


def unreadable(machine: Machine) -> None:
    path = machine.proc / f"{machine.process('shim')}/cmdline"
    path.unlink()
    path.symlink_to("cmdline")


def hidden(machine: Machine) -> None:
    (machine.proc / "1/net/fib_trie").unlink()


def in_a_container(machine: Machine) -> None:
    (machine.proc / "1/comm").write_text("sh\n")


def unlisted(machine: Machine) -> None:
    machine.file("run/containerd/x")
    (machine.root / "run/containerd/io.containerd.runtime.v2.task").symlink_to("io.containerd.runtime.v2.task")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (unreadable, "/cmdline': Too many levels of symbolic links"),
        (hidden, "the processes of this machine are hidden from us ("),
        (in_a_container, "PID 1 is 'sh' and not systemd, as in a container: run on the node itself"),
        (unlisted, "io.containerd.runtime.v2.task': Too many levels of symbolic links"),
    ],
)
def test_where_owners_are_in_doubt_nobody_is_called_leaked(
    tree: Tree, spoil: Callable[[Machine], None], why: str
) -> None:
    tree.lease("10.52.0.2")
    spoil(Machine(tree.root))
    report = gathered(tree)
    assert (report.stocks[0].live, report.stocks[0].leaked) == (None, None)
    assert "1       0       0       ?       ?\n" in display.as_text(report)
    assert json.loads(display.as_json(report))["networks"][0]["leaked"] is None
    [unread] = report.unread
    assert unread.startswith("whose the leases are: ")
    assert why in unread


def test_what_somebody_has_no_right_to_is_no_doubt_of_his() -> None:
    """The environment of a trusted process, and a containerd's state, are root's to read."""
    with TemporaryDirectory(dir="/dev/shm") as root:
        tree = Tree(Path(root))
        machine = Machine(tree.root)
        tree.lease("10.52.0.2", f"{2:064x}")
        tree.lease("10.52.0.3", f"{3:064x}")
        plugin = machine.process("/usr/bin/conmon", "-c", f"{2:064x}")
        (machine.proc / f"{plugin}/environ").chmod(0o600)
        machine.file("run/containerd/io.containerd.runtime.v2.task/k8s.io/x/sandbox")
        (machine.root / "run/containerd").chmod(0o700)
        tree.root.chmod(0o755)

        def as_nobody() -> bytes:
            become_nobody()
            report = gathered(tree)
            return repr((report.stocks[0].live, report.stocks[0].leaked, report.unread)).encode()

        assert child.ask(as_nobody) == b"(1, 1, ())"


def test_what_cni_says_and_cannot_be_read_is_told(tree: Tree) -> None:
    tree.lease("10.52.0.2")
    (tree.root / "etc/cni/net.d").mkdir(parents=True)
    (tree.root / "etc/cni/net.d/10.conflist").write_text("{")
    assert gathered(tree).unread == ("'/etc/cni/net.d/10.conflist': not valid JSON",)


def test_a_path_too_long_for_a_line_stands_below_its_label(tree: Tree) -> None:
    (tree.root / "etc/cni/net.d").mkdir(parents=True)
    tree.lease("10.52.0.2")
    path = f"/etc/cni/net.d/{'x' * 60}.conflist"
    (tree.root / path[1:]).write_text("{")
    assert f"\nNot read:\n          '{path}':\n          not valid JSON\n" in shown(tree)


def test_a_reset_with_an_impossible_time_is_listed(tree: Tree) -> None:
    (tree.state / "set-aside/1-20269999T999999Z-aaaaaaaa/k8s-pod-network").mkdir(parents=True)
    report = gathered(tree)
    assert json.loads(display.as_json(report))["resets"][0]["time"] is None
    assert "1-20269999T999999Z-aaaaaaaa      0  ?\n" in display.as_text(report)


def test_a_reset_that_cannot_be_read_hides_no_other(tree: Tree) -> None:
    for number in (1, 3):
        (tree.state / f"set-aside/{number}-20261121T040210Z-aaaaaaaa/k8s-pod-network").mkdir(parents=True)
    path = tree.state / "set-aside/2-20261121T040210Z-aaaaaaaa"
    path.symlink_to("1-20261121T040210Z-aaaaaaaa")
    report = gathered(tree)
    assert [each.name[0] for each in report.resets] == ["3", "1"]
    assert report.unread == (f"'{path}': Not a directory, or a symbolic link",)


def test_a_long_name_gets_a_line_of_its_own(tree: Tree) -> None:
    name = "k8s-pod-network-" + "x" * 40
    tree.config(f"networks: [{name}]\n")
    tree.lease("10.52.0.2", network=name)
    lines = display.as_text(gathered(tree)).splitlines()
    assert name in lines
    assert max(map(len, lines)) <= 80


def test_nothing_is_changed_by_looking(troubled: Tree) -> None:
    def picture() -> dict[str, tuple[int, int]]:
        return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in troubled.root.rglob("*")}

    before = picture()
    command(troubled.node, "status", "--check")
    assert picture() == before


def test_status_says_what_it_could_not_read(tree: Tree) -> None:
    (tree.root / "proc/sys/kernel/random/boot_id").unlink()
    tree.data.parent.mkdir(parents=True)
    tree.data.write_text("")
    tree.state.write_text("")
    text = shown(tree)
    assert text.count("Not read:") == 3, "each thing once"
    assert "Marker      not known: its directory cannot be read" in text
    assert "(see below what could not be read)" in text
    report = gathered(tree)
    assert report.pending is None
    assert json.loads(display.as_json(report))["marker"] == {"state": "unread"}


def test_status_owns_up_to_leases_that_it_cannot_read(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.lease("10.52.0.2")
    tree.lease("10.52.0.3", "x" * 5000)  # none of host-local's
    tree.lease("10.52.0.4")
    failing("open", monkeypatch, lambda arguments: arguments[0] == "10.52.0.2", errno.EACCES)
    report = gathered(tree)
    assert report.unread == ("network k8s-pod-network: no owner can be read in 2 leases",)
    assert (report.stocks[0].ipv4, report.stocks[0].leaked) == (3, 1)


@pytest.mark.parametrize("boot_id", [OTHER, ""], ids=["of another boot", "of nobody knows which"])
def test_programs_and_people_are_told_the_same_of_a_record_that_is_not_this_boots(tree: Tree, boot_id: str) -> None:
    done(tree)
    assert json.loads(display.as_json(gathered(tree)))["boot"]["result"] == "nothing-due"
    path = tree.root / "proc/sys/kernel/random/boot_id"
    path.write_text(f"{boot_id}\n") if boot_id else path.unlink()
    report = gathered(tree)
    text = display.as_text(report)
    if boot_id:
        assert "Last boot   not judged: the record under /run is of another boot\n" in text
    else:
        assert (
            "Last boot   not judged: the record under /run is of this boot or another: its id\n"
            "            cannot be read\n"
        ) in text
        assert "(boot, 11111111)\n" in text
    assert json.loads(display.as_json(report))["boot"] is None


def test_status_tells_each_state_of_affairs(tree: Tree, journal: Kept) -> None:
    assert "none: the next boot cannot tell how this one ended" in shown(tree)
    record.write(tree.node, THIS)
    assert "boot began and did not end" in shown(tree)
    record.write(tree.node, OTHER)
    assert "the record under /run is of another boot" in shown(tree)
    tree.mark("clean")
    tree.lease("10.60.0.1", network="other")
    assert "clean since 2026-11-23T06:12:01Z (another boot, 22222222)" in shown(tree)
    assert "not configured: other 1" in shown(tree)
    (tree.state / "marker").write_text("")
    report = gathered(tree)
    assert "damaged: it is empty" in display.as_text(report)
    assert json.loads(display.as_json(report))["marker"] == {"state": "damaged", "reason": "it is empty"}
    (tree.state / "marker").unlink()
    assert json.loads(display.as_json(gathered(tree)))["marker"] == {"state": "none"}


def test_a_package_that_came_to_a_running_node_is_nobodys_fault(tree: Tree) -> None:
    """Its scripts leave a note, which goes with the next boot."""
    tree.lease("10.52.0.2")
    (tree.root / "run/cni-lease-reset").mkdir(parents=True)
    (tree.root / "run/cni-lease-reset/installed").touch()
    assert "Last boot   not judged: installed since this kernel started; the next boot is\n" in shown(tree)
    assert gathered(tree).pending is not None, "the next boot sets it aside"
    assert gathered(tree).attention == ()
    service.boot(tree.node, Systemd({"rke2-server.service": "active"}), Kept())  # started by hand after all
    assert any("reset is pending" in each for each in gathered(tree).attention)
