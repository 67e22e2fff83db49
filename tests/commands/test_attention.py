"""What ``status`` finds worth somebody's attention."""

import pytest
from cni_config import FLANNEL, conflist, flannel
from conftest import OTHER, THIS, Systemd, Tree
from reported import done, gathered

from cni_lease_reset.commands import attention, status
from cni_lease_reset.commands.pools import Pool
from cni_lease_reset.core.findings import MessageId, Network, Outcome, Remark, Result
from cni_lease_reset.core.model import UNIT, BootId, Config, Judgement, Marker, State, Verdict
from cni_lease_reset.edges import record

NOT_JUDGED = "this boot was not judged. Reboot when it suits you, or at once: cni-lease-reset recover"
NO_MARK = (
    "nothing marks the end of this boot. To have it marked (pods do not notice): "
    "systemctl restart cni-lease-reset.service"
)


@pytest.mark.parametrize("judged", [True, False])
@pytest.mark.parametrize(
    ("state", "boot_id", "is_pending"),
    [
        ("running", THIS, False),
        ("clean", THIS, False),
        ("clean", OTHER, False),  # it depends on the leases
        ("running", OTHER, True),
        ("odd", THIS, True),
        (None, THIS, True),
    ],
)
def test_a_pending_reset_is_told(tree: Tree, state: str | None, boot_id: str, judged: bool, is_pending: bool) -> None:
    tree.state.mkdir(parents=True)
    if judged:
        done(tree)
        (tree.state / "marker").unlink()
    if state is not None:
        tree.mark(state, boot_id)
    assert gathered(tree).pending == ((NO_MARK if judged else NOT_JUDGED) if is_pending else None)
    tree.config("clear_when: never\n")
    assert gathered(tree).pending is None


def test_what_another_boot_could_not_do_says_nothing_of_this_one(tree: Tree) -> None:
    judgement = Judgement(Verdict.UNCLEAN, "the last boot never got to mark its shutdown as clean", OTHER)
    record.write(tree.node, OTHER, Outcome(OTHER, judgement, Result.REFUSED, "k3s.service is active, pods may live"))
    tree.mark("running", THIS)
    assert gathered(tree).pending is None


def test_where_the_boot_id_cannot_be_read_nothing_is_said_of_another_boot() -> None:
    running = Marker(State.RUNNING, BootId(OTHER), "2026-11-23T06:12:01Z")
    assert attention.pending(None, None, running, Config()) is None


@pytest.mark.parametrize(("leases", "told"), [(8, 0), (9, 1), (10, 1)])
def test_ninety_percent_of_a_pool_are_told(leases: int, told: int) -> None:
    pool = Pool("ipv4", 10, leases, "10.52.0.1-10.52.0.11")
    assert len(list(attention.of_pools(Network("k8s-pod-network"), None, (pool,), Config()))) == told


def test_a_boot_that_was_refused_leaves_a_reset_pending(tree: Tree) -> None:
    done(tree, Result.REFUSED, "k3s.service is active, pods may live")
    said = "this boot could not do what was due (refused: k3s.service is active, pods may live)"
    assert gathered(tree).pending == f"{said}. Reboot when it suits you, or at once: cni-lease-reset recover"
    done(tree)
    assert (gathered(tree).pending, gathered(tree).attention) == (None, ())


def test_a_broken_configuration_leaves_a_reset_pending(tree: Tree) -> None:
    done(tree, Result.MISCONFIGURED, "config.yaml:1: networks: set twice")
    report = gathered(tree)
    said = "this boot could not do what was due (misconfigured: config.yaml:1: networks: set twice)"
    again = "Reboot when it suits you, or at once: cni-lease-reset recover"
    assert report.pending == f"{said}, which is mended since. {again}"
    assert report.attention == (f"A reset is pending for the next boot: {report.pending}",)
    tree.config("network: [x]\n")
    assert gathered(tree).pending == f"{said}. Mend the configuration, try it with: cni-lease-reset config"


def test_a_boot_that_was_not_judged_needs_attention(tree: Tree) -> None:
    tree.mark("clean")
    assert gathered(tree).attention == (
        "This boot was not judged. Whether its unit is masked or disabled: systemctl status cni-lease-reset",
    )


@pytest.mark.parametrize(
    "lasting",
    [
        Remark(MessageId.MARKER_STUCK, "The clean mark cannot be used up: it is stuck"),
        Remark(MessageId.NO_RUNTIME, "No unit of runtime_units is on this node (k3s.service)"),
    ],
    ids=lambda remark: remark.about,
)
def test_what_boot_said_of_the_node_stays_in_sight(tree: Tree, lasting: Remark) -> None:
    done(tree)
    outcome = record.read(tree.node).outcome
    assert outcome is not None
    record.write(tree.node, outcome.boot_id, outcome._replace(remarks=(Remark(MessageId.IGNORED, "less"), lasting)))
    assert gathered(tree).attention == (lasting.text,)


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
    assert gathered(tree).attention == ("k8s-pod-network: 1 of 1 IPv4 addresses are taken (10.42.3.1-10.42.3.2)",)


def test_a_crowded_network_that_no_setting_names_needs_attention(tree: Tree) -> None:
    done(tree)
    for number in range(111):
        tree.lease(f"10.60.0.{number}", network="other")
    said = "other holds 111 leases, and no setting names it. If it is one of Kubernetes, add it to 'networks'."
    assert gathered(tree).attention == (said,)


def test_a_network_that_no_setting_names_needs_attention_where_it_is_all_there_is(tree: Tree) -> None:
    """The name of the one that is meant may be mistyped."""
    done(tree)
    tree.config("networks: [k8s-pod-netwrok]\n")
    tree.lease("10.52.0.2")
    said = "k8s-pod-network holds 1 lease, and no setting names it. If it is one of Kubernetes, add it to 'networks'."
    assert gathered(tree).attention == (said,)


@pytest.mark.parametrize("limit", ["110", "null"])
@pytest.mark.parametrize(("leases", "told"), [(11, False), (12, True)])
def test_a_network_that_no_setting_names_needs_attention_when_its_pool_is_full(
    tree: Tree, limit: str, leases: int, told: bool
) -> None:
    done(tree)
    tree.network.mkdir(parents=True)
    tree.config(f"max_kept_leases: {limit}\n")
    conflist(tree, {"type": "host-local", "subnet": "10.60.0.0/28"}, name="other")
    for number in range(2, 2 + leases):
        tree.lease(f"10.60.0.{number}", network="other")
    tree.lease("10.61.0.2", network="other")  # of another subnet
    said = (
        "other: 12 of 13 IPv4 addresses are taken (10.60.0.1-10.60.0.14), and no setting names it. If it is one of "
        "Kubernetes, add it to 'networks'."
    )
    assert gathered(tree).attention == ((said,) if told else ())


def test_of_two_range_sets_the_full_one_needs_attention(tree: Tree) -> None:
    """A pod gets an address of each, so that the next one fails."""
    done(tree)
    tree.shim()
    ranges = [[{"subnet": "10.52.0.0/30"}], [{"subnet": "10.53.0.0/26"}]]
    conflist(tree, {"type": "host-local", "ranges": ranges})
    for address in ("10.52.0.2", "10.53.0.2"):
        tree.lease(address)
    said = "k8s-pod-network: 1 of 1 IPv4 addresses are taken (10.52.0.1-10.52.0.2)"
    assert gathered(tree).attention == (said,)


def test_leases_of_another_subnet_fill_no_pool(tree: Tree) -> None:
    done(tree)
    tree.shim()
    conflist(tree, {"type": "host-local", "ranges": [[{"subnet": "10.52.0.0/24"}]]})
    for number in range(2, 252):
        tree.lease(f"10.{51 + number % 2}.0.{number}")
    assert gathered(tree).attention == ()


def test_a_marker_that_a_boot_loses_needs_attention(tree: Tree) -> None:
    done(tree)
    (tree.root / "proc/self").mkdir()
    (tree.root / "proc/self/mountinfo").write_text("30 22 0:26 / /var rw - tmpfs tmpfs rw\n")
    said = "The marker is lost at each boot, for /var is a tmpfs: every boot then sets all leases aside."
    assert gathered(tree).attention == (said,)


def test_a_boot_that_is_marked_as_clean_and_goes_on_needs_attention(tree: Tree) -> None:
    """A shutdown that was cancelled after our ExecStop."""
    done(tree)
    tree.mark("clean", THIS)
    said = f"This boot is marked as clean, and a crash of it may pass for clean. To mark it as running: systemctl restart {UNIT}"
    assert said in status.gather(tree.node, Systemd(down=False)).attention
    assert said not in status.gather(tree.node, Systemd(down=True)).attention
