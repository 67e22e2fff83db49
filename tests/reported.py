"""What ``status`` gathers and shows of a tree."""

from conftest import OTHER, THIS, Tree

from cni_lease_reset.commands import display, status
from cni_lease_reset.commands.status import Report
from cni_lease_reset.core.findings import Outcome, Result
from cni_lease_reset.core.model import Judgement, Verdict
from cni_lease_reset.edges import record
from cni_lease_reset.edges.systemd import Manager


def gathered(tree: Tree) -> Report:
    return status.gather(tree.node, Manager())


def shown(tree: Tree) -> str:
    return display.as_text(gathered(tree))


def done(tree: Tree, result: Result = Result.NOTHING_DUE, why: str = "no leases") -> None:
    """A boot that came to this, on a node that runs."""
    outcome = Outcome(THIS, Judgement(Verdict.CLEAN, "the last boot marked its shutdown as clean", OTHER), result, why)
    tree.mark("running", THIS)
    if not outcome.done:
        (tree.state / "marker").unlink()
    record.write(tree.node, outcome.boot_id, outcome)
