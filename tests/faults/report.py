"""docs/RELIABILITY.md: the promises, each with the figures of the run that proves it."""

import os
import platform
import textwrap
import time
from collections.abc import Mapping
from typing import Final, NamedTuple

from conftest import TOP

PAGE: Final = TOP / "docs/RELIABILITY.md"


class Promise(NamedTuple):
    """What an operator may rely on, and what was counted in proving it."""

    title: str
    text: str
    figures: tuple[str, ...]


KILLED: Final = "crash points: the program killed there, and booted again"
FAULTS: Final = "system calls that failed, each in a run of its own"
ONE_LEASE: Final = "errors of one lease of sixty, or of all of them"
DISKS: Final = "disks after a power cut that lost un-fsynced writes, booted"
STEPS: Final = "steps of random nodes' lives, each checked against the model"
INPUTS: Final = "inputs of fuzzed parsers"
HOSTILE: Final = "hostile trees on which a verb ran and touched nothing outside"
SWAPS: Final = "moments at which a network was swapped for a link"
LEASES: Final = "leases of one network, set aside by one boot"
PAIRS: Final = "pairs of our programs at once"
STORM: Final = "ADDs and DELs of the real host-local beside our work"
PODS: Final = "pods of the real plugins that came and went beside `recover`, none of them harmed"
PASSES: Final = "runs of `recover` meanwhile"
LEAKED: Final = "leaked leases that they set aside"

PROMISES: Final = (
    Promise(
        "A crash at any point loses nothing",
        "The real program is killed (SIGKILL) before and after every system call with which `boot`, `shutdown`, "
        "`recover` and `restore` change a file, under strace. After each, every lease is where it was or in a reset, "
        "once and unchanged; the marker is the old one or the new one; and the next boot judges by it, clears what is "
        "due and leaves nothing behind.",
        (KILLED,),
    ),
    Promise(
        "A broken disk is told, not made worse",
        "Each of these calls fails in turn with EIO, ENOSPC, EROFS, EACCES, EXDEV, EMFILE and EINTR, and goes on "
        "failing as a full or broken disk does; the calls that only look fail, too. Each time: no traceback, a line "
        "that names what failed, the right exit status; a marker that was not clean stays unless all was done, and a "
        "clean one is replaced or removed, so that this boot can never pass for clean; where our directory cannot be "
        "opened at all, the journal says so. And one lease of sixty cannot be looked at, opened, moved or removed "
        "(EUCLEAN, EPERM, EIO): `boot`, `recover` and `restore` deal with the others, name it, and are done. Where it "
        "is all sixty, the network has failed, and the exit status says so.",
        (FAULTS, ONE_LEASE),
    ),
    Promise(
        "What was not fsynced may be lost",
        "A model over the recorded system calls builds every disk that a power cut may leave: each suffix of the "
        "changes lost, with and without the file contents that no fsync promised (empty, NUL bytes, half), as the "
        "journals of ext4 and XFS allow; and, harder than any of them, each choice of the un-fsynced changes. The "
        "marker is old or new, never wrongly clean, no lease is lost or doubled, and the next boot goes on. Real power "
        "cuts of virtual machines (`make vm-test`) are the other half.",
        (DISKS,),
    ),
    Promise(
        "No living pod's lease is ever moved",
        "Random lives of a node against a simple model: boots, pods, torn leases, clean shutdowns, power cuts, crashes "
        "in the middle, restarts of the service, damaged markers, changed settings, two programs at once, recoveries "
        "and restores. After every step: living pods hold their leases; what is on disk is what lives, what leaked and "
        "what was set aside; a clean verdict follows only a recorded clean shutdown; after a completed boot all but "
        "`max_kept_leases` addresses are free; and twice is once.",
        (STEPS,),
    ),
    Promise(
        "Whatever others wrote, it is read to an end",
        "The configuration, the marker, leases, CNI configurations and all else that is read from others is fuzzed "
        "from a kept corpus: no traceback, no hang, bounded memory, nothing printed raw.",
        (INPUTS,),
    ),
    Promise(
        "Hostile files lead nowhere",
        "Symbolic links at every level, hard links, FIFOs, sockets, devices, directories in the place of files, names "
        "with newlines, escape sequences and 255 bytes, a network swapped for a link before any of our calls: strace "
        "sees that nothing outside is opened, and nothing outside changes.",
        (HOSTILE, SWAPS, LEASES),
    ),
    Promise(
        "One at a time",
        "Of two of our programs the second refuses. Beside a storm of ADD and DEL no two pods get one address, and each "
        "lease is on disk at the end.",
        (PAIRS, STORM),
    ),
    Promise(
        "`recover` harms no living pod",
        "On a small machine of its own (namespaces, with a PID 1 called systemd) the real bridge, ptp and host-local "
        "make pods without any shim, and up to a second passes between each lease and its address. The networks are full of leaked "
        "leases again and again, pods wait for addresses, and `recover` runs all the time. No living pod's lease is "
        "ever missing, no address is given twice, and nearly all that leaked goes. The same with one kind of evidence "
        "kept from the program (the environments of plugins, the namespaces of processes, the mounted ones, ids on "
        "command lines, the other lease of a dual-stack pod) harms a pod within seconds, each time one of the kind that "
        "only this evidence shows.",
        (PODS, PASSES, LEAKED),
    ),
)


def write(figures: Mapping[str, int], seconds: float) -> None:
    """Write the page. Raises ``KeyError`` where something was not counted: then it was not tried."""
    tried = [
        "This page is for whoever wants to know what may break without a lease lost or a living pod hurt. "
        f"Written by `make fault-test` on {time.strftime('%Y-%m-%d', time.gmtime())}: Linux {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}, {os.cpu_count()} processors, {seconds / 60:.0f} minutes. A quick part of "
        "it is in every `make test`. Each figure counts trials, and none of them failed: a failure leaves this page "
        "as it was."
    ]
    lines = ["# Reliability", "", *textwrap.wrap(tried[0], 80), ""]
    for promise in PROMISES:
        lines += [f"## {promise.title}", "", *textwrap.wrap(promise.text, 80), ""]
        lines += [f"- **{figures[what]:,}** {what}" for what in promise.figures]
        lines += [""]
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n".join(lines).rstrip() + "\n")
