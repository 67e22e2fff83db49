"""What this boot did, kept under /run: that ``boot`` ran under this kernel, and what came of it."""

import json
import os
from typing import Final, NamedTuple

from ..core.findings import Counts, MessageId, Outcome, Remark, Result
from ..core.model import BootId, Judgement, Verdict
from . import durable
from .node import RUNTIME_DIRECTORY, Node

_NAME: Final = "boot"
_LIMIT: Final = 1 << 20


class Record(NamedTuple):
    """What /run tells of the last ``boot``: nothing where none ran."""

    boot_id: BootId | None = None
    outcome: Outcome | None = None  # None where it did not end, or is still at work
    unread: str | None = None  # why it cannot be read
    late: bool = False  # the package came to the running system: no boot could run

    def ran(self, boot_id: BootId) -> bool:
        """Whether ``boot`` ran before under this kernel. A record that cannot be read counts: the safe side."""
        return self.unread is not None or self.boot_id == boot_id

    def of(self, boot_id: BootId | None) -> Outcome | None:
        """Return what this boot came to, as far as the record tells."""
        return self.outcome if self.boot_id == boot_id else None


def read(node: Node) -> Record:
    """Read the record of the last ``boot``."""
    try:
        with durable.directory(RUNTIME_DIRECTORY, root=node.root) as directory:
            return parse(durable.read(_NAME, _LIMIT, parent=directory)[0])
    except FileNotFoundError:
        return Record(late=os.path.exists(node.path(f"{RUNTIME_DIRECTORY}/installed")))  # by our packages
    except OSError as error:
        return Record(unread=error.strerror or str(error))


def write(node: Node, boot_id: BootId, outcome: Outcome | None = None) -> OSError | None:
    """Record that ``boot`` runs, for a later one may find living pods, and then what came of it; or say why not."""
    if node.rehearsal:
        return None
    record = {"boot_id": boot_id} if outcome is None else as_json(outcome)
    directory = durable.directory(RUNTIME_DIRECTORY, root=node.root, create=True)
    try:
        with durable.named(node.path(f"{RUNTIME_DIRECTORY}/{_NAME}"), always=True), directory as run:
            durable.replace(run, _NAME, json.dumps(record, indent=1).encode() + b"\n")
    except OSError as error:
        return error
    return None


def first_time(node: Node, what: str) -> bool:
    """Whether this is said for the first time under this kernel, as far as /run remembers."""
    try:
        with durable.directory(RUNTIME_DIRECTORY, root=node.root, create=True) as directory:
            os.close(os.open(what, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=directory))
    except OSError as error:
        return not isinstance(error, FileExistsError)  # rather twice than never
    return True


def as_json(outcome: Outcome) -> dict[str, object]:
    """An outcome as ``status --json`` shows it."""
    return {
        "boot_id": outcome.boot_id,
        "verdict": outcome.judgement.verdict,
        "verdict_reason": outcome.judgement.why,
        "previous_boot_id": outcome.judgement.previous,
        "result": outcome.result,
        "reason": outcome.why,
        "reset": outcome.reset,
        "leases": outcome.total._asdict(),
        "networks": [{"name": name, **its._asdict()} for name, its in outcome.networks.items()],
        "not_configured": [{"name": name, "leases": leases} for name, leases in outcome.unlisted],
        "remarks": [{"about": about.name.lower().replace("_", "-"), "text": text} for about, text in outcome.remarks],
        "usec": outcome.usec,
    }


def parse(content: bytes) -> Record:
    """Read a record that :func:`write` wrote."""
    try:
        record = json.loads(content)
        if record.keys() == {"boot_id"}:
            return Record(BootId(record["boot_id"]))
        outcome = Outcome(
            record["boot_id"],
            Judgement(Verdict(record["verdict"]), record["verdict_reason"], record["previous_boot_id"]),
            Result(record["result"]),
            record["reason"],
            record["reset"],
            {each["name"]: Counts(*(each[key] for key in Counts._fields)) for each in record["networks"]},
            tuple((each["name"], each["leases"]) for each in record["not_configured"]),
            tuple(Remark(MessageId[it["about"].upper().replace("-", "_")], it["text"]) for it in record["remarks"]),
            record["usec"],
        )
        return Record(outcome.boot_id, outcome)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return Record(unread=f"no record of ours ({type(error).__name__})")
