"""The verdict entry that each run of ``boot`` leaves in the journal."""

from typing import NamedTuple


class Verdict(NamedTuple):
    """What an operator reads, and the fields beside it."""

    verdict: str
    message: str
    reason: str
    reset: str
    found: int
    cleared: int
    kept: int
    torn: int
    usec: int


def parse(entries: list[dict[str, str]]) -> tuple[Verdict, ...]:
    """Pick the verdict entries out of a journal."""
    return tuple(_verdict(entry) for entry in entries if "CNI_VERDICT" in entry)


def _verdict(entry: dict[str, str]) -> Verdict:
    def number(name: str) -> int:
        return int(entry.get(name, "0"))

    return Verdict(
        entry["CNI_VERDICT"],
        entry["MESSAGE"],
        entry["CNI_REASON"],
        entry.get("CNI_RESET", ""),
        number("CNI_LEASES_FOUND"),
        number("CNI_LEASES_CLEARED"),
        number("CNI_LEASES_KEPT"),
        number("CNI_LEASES_TORN"),
        number("CNI_USEC"),
    )
