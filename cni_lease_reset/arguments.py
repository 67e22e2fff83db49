"""The grammar of the command line. The manual page and the completions are compared with it."""

import argparse
from functools import partial
from typing import NoReturn

from . import __version__
from .core.errors import UsageError, printable


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        problem = message.partition(" (choose from")[0]  # --help lists them, a line each
        raise UsageError(f"{problem}; see {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    """Build the parser."""
    what = "Set aside the pod addresses of an unclean shutdown."
    top = _Parser(prog="cni-lease-reset", description=what, allow_abbrev=False)
    top.add_argument("--root", metavar="DIR", default="/", help="work on the tree below DIR, not on this machine")
    top.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    verb = partial(verbs.add_parser, allow_abbrev=False)
    boot = verb("boot", help="judge the last boot and set aside what it leaked (ExecStart=)")
    boot.add_argument("--dry-run", action="store_true", help="say what would be done, change nothing")
    shutdown = verb("shutdown", help="mark this shutdown as clean (ExecStop=)")
    force = "do not ask systemd whether the system goes down (needs --root)"
    shutdown.add_argument("--force", action="store_true", help=force)
    status = verb("status", help="tell what the last boot did, and how things stand")
    form = status.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="for programs")
    metrics = "for Prometheus: print them, or replace a file of node_exporter's"
    # const: no text, or argparse would take it for a file.
    form.add_argument("--metrics", metavar="FILE", nargs="?", const=True, type=_metrics_file, help=metrics)
    status.add_argument("--check", action="store_true", help="exit with 3 if something needs attention")
    recover = verb("recover", help="set aside the leases whose pod does not live, on a running node")
    choice = recover.add_mutually_exclusive_group()
    choice.add_argument("--dry-run", action="store_true", help="show the leases that look leaked, change nothing")
    choice.add_argument("--yes", action="store_true", help="do not ask")
    recover.add_argument("--crowded", action="store_true", help="only networks with more than max_kept_leases")
    restore = verb("restore", help="put the leases of a reset back")
    restore.add_argument("reset", metavar="RESET", help="its name, as status shows it")
    history = verb("history", help="list the boots that the journal knows")
    history.add_argument("--json", action="store_true", help="for programs")
    verb("config", help="print the effective configuration")
    return top


def _metrics_file(text: str) -> str:
    if not text.startswith("/") or not text.endswith(".prom"):
        problem = "must be an absolute path that ends in '.prom', for node_exporter reads no other files"
        raise argparse.ArgumentTypeError(f"'{printable(text[:60])}' {problem}")
    return text
