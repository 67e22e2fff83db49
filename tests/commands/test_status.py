"""What ``status`` shows and what it finds worth somebody's attention."""

import json

import pytest
from cni_config import FLANNEL, conflist, flannel
from conftest import GOLDEN, OTHER, SANDBOX, THIS, HostLocal, Kept, Systemd, Tree
from programs import command
from reported import gathered

from cni_lease_reset import service
from cni_lease_reset.commands import attention, display, status
from cni_lease_reset.commands.pools import Pool
from cni_lease_reset.commands.screen import Screen
from cni_lease_reset.core.model import (
    UNIT,
    About,
    BootId,
    Config,
    Judgement,
    Marker,
    Network,
    NetworkOutcome,
    Outcome,
    Remark,
    Result,
    State,
    Verdict,
)
from cni_lease_reset.edges import record
from cni_lease_reset.edges.systemd import Answer, NoSystemd

HOST_LOCAL = {"type": "host-local", "ranges": [[{"subnet": "10.52.0.0/24"}], [{"subnet": "fd00:52::/64"}]]}


def done(tree: Tree, result: Result = Result.NOTHING_DUE, why: str = "no leases") -> None:
    """A boot that came to this, on a node that runs."""
    tree.mark("running", THIS)
    judgement = Judgement(Verdict.CLEAN, "the last boot marked its shutdown as clean", OTHER)
    record.finish(tree.node, Outcome(THIS, judgement, result, why))


@pytest.fixture
def troubled(tree: Tree) -> Tree:
    """A node that crashed twice, did not get rid of its leases, and is about to run out of addresses."""
    judgement = Judgement(Verdict.UNCLEAN, "the last boot never got to mark its shutdown as clean", OTHER)
    networks = (NetworkOutcome("k8s-pod-network", 220, 0, 3),)
    why = "pod sandbox abababababab alive"
    record.finish(tree.node, Outcome(THIS, judgement, Result.REFUSED, why, networks=networks, usec=9120))
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
                {"family": "ipv4", "size": 253, "leases": 240},
                {"family": "ipv6", "size": 2**64 - 2, "leases": 8},
            ],
        }
    ]
    assert document["resets"][1] == {
        "name": "2-20261121T040210Z-3f9a1c22",
        "leases": 120,
        "time": "2026-11-21T04:02:10Z",
        "reason": "unclean shutdown",
    }
    assert (document["version"], document["pending"], len(document["attention"])) == (1, True, 3)


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


def test_colour_is_for_terminals(troubled: Tree) -> None:
    report = gathered(troubled)
    text = display.as_text(report, Screen(colours=True))
    assert "\x1b[33mAttention: \x1b[0mA reset is pending" in text
    assert "\x1b[1;31m█████" in text
    assert "\x1b[" not in command(troubled.node, "status").stdout


def test_where_owners_are_in_doubt_nobody_is_called_leaked(tree: Tree) -> None:
    tree.lease("10.52.0.2")
    (tree.root / "proc/7").mkdir()
    (tree.root / "proc/7/cmdline").write_text("/usr/bin/conmon\0--cid\0x\0")
    report = gathered(tree)
    assert (report.stocks[0].live, report.stocks[0].leaked) == (None, None)
    assert "1       0       0       ?       ?\n" in display.as_text(report, Screen())
    assert json.loads(display.as_json(report))["networks"][0]["leaked"] is None


def test_processes_that_cannot_be_listed_are_told(tree: Tree) -> None:
    tree.lease("10.52.0.2")
    (tree.root / "run/containerd").mkdir(parents=True)
    (tree.root / "run/containerd/io.containerd.runtime.v2.task").write_text("")
    report = gathered(tree)
    assert report.stocks[0].live is None
    assert "io.containerd.runtime.v2.task': Not a directory" in report.unread[0]


def test_what_cni_says_and_cannot_be_read_is_told(tree: Tree) -> None:
    tree.lease("10.52.0.2")
    (tree.root / "etc/cni/net.d").mkdir(parents=True)
    (tree.root / "etc/cni/net.d/10.conflist").write_text("{")
    assert gathered(tree).unread == ("'/etc/cni/net.d/10.conflist': not valid JSON",)


@pytest.mark.parametrize(
    ("state", "boot_id", "why"),
    [
        ("running", THIS, None),
        ("clean", THIS, None),
        ("clean", OTHER, None),
        ("running", OTHER, "the marker is still that of an earlier boot, which had no clean end"),
        ("odd", THIS, "the marker is damaged (it says state=odd)"),
    ],
)
def test_a_pending_reset_is_told(tree: Tree, state: str, boot_id: str, why: str | None) -> None:
    tree.mark(state, boot_id)
    assert gathered(tree).pending == (why and f"{why}. Reboot when it suits you.")
    tree.config("clear_when: never\n")
    assert gathered(tree).pending is None


def test_without_a_marker_a_reset_is_pending(tree: Tree) -> None:
    tree.state.mkdir(parents=True, exist_ok=True)
    assert gathered(tree).pending == "there is no marker. Reboot when it suits you."


def test_what_another_boot_could_not_do_says_nothing_of_this_one(tree: Tree) -> None:
    judgement = Judgement(Verdict.UNCLEAN, "the last boot never got to mark its shutdown as clean", OTHER)
    record.finish(tree.node, Outcome(OTHER, judgement, Result.REFUSED, "k3s.service is active, pods may live"))
    tree.mark("running", THIS)
    assert gathered(tree).pending is None


def test_where_the_boot_id_cannot_be_read_nothing_is_said_of_another_boot() -> None:
    running = Marker(State.RUNNING, BootId(OTHER), "2026-11-23T06:12:01Z")
    assert attention.pending(None, None, running, Config()) is None


@pytest.mark.parametrize(("leases", "told"), [(8, 0), (9, 1), (10, 1)])
def test_ninety_percent_of_a_pool_are_told(leases: int, told: int) -> None:
    pool = Pool("ipv4", 10, leases)
    assert len(list(attention.of_pools(Network("k8s-pod-network", leases), None, (pool,), Config()))) == told


def test_a_boot_that_was_refused_leaves_a_reset_pending(tree: Tree) -> None:
    done(tree, Result.REFUSED, "k3s.service is active, pods may live")
    said = "this boot could not do what was due (refused: k3s.service is active, pods may live)"
    assert gathered(tree).pending == f"{said}. Reboot when it suits you."
    done(tree)
    assert (gathered(tree).pending, gathered(tree).attention) == (None, ())


def test_after_a_clean_shutdown_a_broken_configuration_leaves_nothing_pending(tree: Tree) -> None:
    done(tree, Result.MISCONFIGURED, "config.yaml:1: networks: set twice")
    report = gathered(tree)
    assert report.pending is None
    assert report.attention == (
        "The configuration cannot be used: config.yaml:1: networks: set twice. "
        "Mend the configuration, try it with: cni-lease-reset config",
    )


def test_a_boot_that_was_not_judged_needs_attention(tree: Tree) -> None:
    tree.mark("clean")
    assert gathered(tree).attention == ("This boot was not judged, see: systemctl status cni-lease-reset",)


def test_a_clean_mark_that_could_not_be_used_up_stays_in_sight(tree: Tree) -> None:
    done(tree)
    outcome = record.read(tree.node)
    assert isinstance(outcome, Outcome)
    stuck = Remark(About.MARKER_STUCK, "The clean mark cannot be used up: it is stuck")
    record.finish(tree.node, outcome._replace(remarks=(Remark(About.IGNORED, "less"), stuck)))
    assert gathered(tree).attention == (stuck.text,)


def test_without_a_pools_size_the_limit_of_the_setting_counts(tree: Tree) -> None:
    done(tree)
    for number in range(111):
        tree.lease(f"10.52.0.{number}")
    said = "k8s-pod-network: more than 110 addresses are taken, and 111 look leaked: cni-lease-reset recover --dry-run"
    assert gathered(tree).attention == (said,)
    tree.shim()
    assert gathered(tree).attention == ()  # all of living pods: more than kubelet's default, and right


def test_a_pool_full_of_living_pods_is_told_without_a_remedy(tree: Tree) -> None:
    done(tree)
    tree.shim()
    flannel(tree, FLANNEL.replace("/24", "/30"))
    tree.lease("10.42.3.2")
    assert gathered(tree).attention == ("k8s-pod-network: 1 of 1 IPv4 addresses are taken",)


def test_a_crowded_network_that_no_setting_names_needs_attention(tree: Tree) -> None:
    done(tree)
    for number in range(111):
        tree.lease(f"10.60.0.{number}", network="other")
    said = "other holds 111 leases, and no setting names it. If it is one of Kubernetes, add it to 'networks'."
    assert gathered(tree).attention == (said,)


def test_a_unit_that_may_start_before_us_needs_attention(tree: Tree) -> None:
    class Ordered(NoSystemd):
        def ordered_before(self, unit: str) -> Answer[tuple[str, ...]]:
            assert unit == UNIT
            return Answer(("rke2-server.service", "rke2-agent.service", "k3s.service", "shutdown.target"))

    done(tree)
    said = f"k3s-agent.service may start before us. Order it: systemctl edit {UNIT}, [Unit] Before=k3s-agent.service"
    assert status.gather(tree.node, Ordered()).attention == (said,)


def test_a_marker_that_a_boot_loses_needs_attention(tree: Tree) -> None:
    done(tree)
    (tree.root / "proc/self").mkdir()
    (tree.root / "proc/self/mountinfo").write_text("30 22 0:26 / /var rw - tmpfs tmpfs rw\n")
    said = "The marker is lost at each boot, for /var is a tmpfs: every boot then sets all leases aside."
    assert gathered(tree).attention == (said,)


def test_a_reset_with_an_impossible_time_is_listed(tree: Tree) -> None:
    (tree.state / "set-aside/1-20269999T999999Z-aaaaaaaa/k8s-pod-network").mkdir(parents=True)
    report = gathered(tree)
    assert json.loads(display.as_json(report))["resets"][0]["time"] is None
    assert "1-20269999T999999Z-aaaaaaaa      0  ?\n" in display.as_text(report, Screen())


def test_a_long_name_gets_a_line_of_its_own(tree: Tree) -> None:
    name = "k8s-pod-network-" + "x" * 40
    tree.config(f"networks: [{name}]\n")
    tree.lease("10.52.0.2", network=name)
    lines = display.as_text(gathered(tree), Screen()).splitlines()
    assert name in lines
    assert max(map(len, lines)) <= 80


def test_nothing_is_changed_by_looking(troubled: Tree) -> None:
    def picture() -> dict[str, tuple[int, int]]:
        return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in troubled.root.rglob("*")}

    before = picture()
    command(troubled.node, "status", "--check")
    assert picture() == before
