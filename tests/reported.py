"""What ``status`` gathers and shows of a tree."""

from conftest import Tree

from cni_lease_reset.commands import display, status
from cni_lease_reset.commands.screen import Screen
from cni_lease_reset.commands.status import Report
from cni_lease_reset.edges.systemd import NoSystemd


def gathered(tree: Tree) -> Report:
    return status.gather(tree.node, NoSystemd())


def shown(tree: Tree) -> str:
    return display.as_text(gathered(tree), Screen())
