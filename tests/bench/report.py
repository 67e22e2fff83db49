"""Writes docs/PERFORMANCE.md and docs/growth.svg from what measure.py timed."""

import os
import platform
import subprocess
from collections.abc import Iterator
from math import log10
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypedDict

Times = dict[str, list[list[float]]]  # by cell: rounds of runs, in seconds
Cpu = dict[str, list[float]]  # by cell: the mean of each round, user and system, in seconds


class Results(TypedDict):
    """What measure.py wrote."""

    times: Times
    cpu: Cpu
    memory: dict[str, int]  # peak, in KiB
    imports: str
    disk: str  # where the file of the loop device lay


NAMES = {
    "floor": "the bare interpreter, `python3 -I -c pass`",
    "clean-0": "clean boot, no lease",
    "clean-254": "clean boot, 254 leases kept",
    "setting-254": "the same, with a setting in the configuration",
    "unclean-0": "unclean boot, no lease",
    "unclean-254": "unclean boot, 254 leases set aside",
    "shutdown-254": "`shutdown`, marked as clean",
    "unclean-4096": "unclean boot, 4,096 leases set aside",
    "floor-recover": "the bare interpreter, beside 200 processes",
    "recover-253": "`recover`, 253 leases, 110 mounted network namespaces, 200 processes",
    "lock-253": "the same: how long it holds host-local's lock",
    "least-4096": "a bare interpreter that reads and renames 4,096 leases, and nothing more",
    "unclean-65534": "unclean boot, 65,534 leases set aside",
    "least-65534": "a bare interpreter that reads and renames 65,534 leases, and nothing more",
}
RIVALS = {"rm": "`rm -rf`", "tmpfiles": "`systemd-tmpfiles --remove --boot`", "find": "`find … -type f -delete`"}


class Budget(NamedTuple):
    """At most so many times as long as another cell of the same rounds."""

    what: str
    cell: str
    base: str
    most: float


BUDGETS = (
    Budget("clean boot, no lease, against the bare interpreter", "clean-0", "floor", 3.0),
    Budget("clean boot, 254 leases, against the bare interpreter", "clean-254", "floor", 3.0),
    Budget("the same with a setting", "setting-254", "floor", 5),
    Budget("unclean boot, 254 leases, against the bare interpreter", "unclean-254", "floor", 5),
    Budget("`shutdown`, against the bare interpreter", "shutdown-254", "floor", 6),
    Budget("`recover` on a full node, against the bare interpreter", "recover-253", "floor-recover", 15),
    Budget("the same, how long it holds host-local's lock", "lock-253", "floor-recover", 10),
    Budget("unclean boot, growth from 4,096 to 65,534 leases", "unclean-65534", "unclean-4096", 18),
    # `rm -rf` is done with 4,096 before a boot has asked systemd, and a bare interpreter that only reads and renames
    # 65,534 takes 1.5 times as long as that: hold us against such an interpreter.
    Budget("unclean boot, 4,096 leases, against the least that must be done", "unclean-4096", "least-4096", 2.5),
    Budget("the same, against `rm -rf`", "unclean-4096", "rm-4096", 6),
    Budget("the same, against systemd-tmpfiles", "unclean-4096", "tmpfiles-4096", 6),
    Budget("unclean boot, 65,534 leases, against the least that must be done", "unclean-65534", "least-65534", 1.4),
    Budget("the same, against `rm -rf`", "unclean-65534", "rm-65534", 2.5),
    Budget("the same, against systemd-tmpfiles", "unclean-65534", "tmpfiles-65534", 2.7),
)
MOST_MEMORY = 60  # MiB, at 65,534 leases


def middle(times: Times, cell: str) -> float:
    """The median of all runs, in milliseconds."""
    return 1000 * median(time for each in times[cell] for time in each)


def ratio(times: Times, cell: str, base: str) -> float:
    """The median over the rounds of the ratio of their medians: what slows a round down slows both."""
    return median(median(a) / median(b) for a, b in zip(times[cell], times[base], strict=True))


def title(cell: str) -> str:
    """Say in words what a cell is."""
    name = cell.removesuffix("-cold")
    if name in NAMES:
        return NAMES[name]
    rival, _, leases = name.partition("-")
    return f"{RIVALS[rival]}, {int(leases):,} leases"


def rows(results: Results, *, cold: bool) -> Iterator[str]:
    """Write the table's rows."""
    times = results["times"]
    floor = "floor-cold" if cold else "floor"
    for cell in times:
        if cell.endswith("-cold") is cold:
            spread = sorted(1000 * time for each in times[cell] for time in each)
            low, high = spread[len(spread) // 10], spread[-1 - len(spread) // 10]
            against = middle(times, cell) / middle(times, floor)
            cpu = 1000 * median(results["cpu"][cell])
            yield (
                f"| {title(cell)} | {middle(times, cell):.1f} | {low:.1f} – {high:.1f} | {against:.1f} | {cpu:.1f} |"
                f" {len(spread)} |"
            )


def verdicts(results: Results) -> Iterator[tuple[str, bool]]:
    """Hold the figures against the budgets."""
    for each in BUDGETS:
        found = ratio(results["times"], each.cell, each.base)
        cpu = median(a / b for a, b in zip(results["cpu"][each.cell], results["cpu"][each.base], strict=True))
        yield f"| {each.what} | {each.most:g} × | {found:.2f} × | {cpu:.2f} × |", found <= each.most
    mebibytes = results["memory"]["unclean-65534"] / 1024
    yield f"| peak memory at 65,534 leases | {MOST_MEMORY} MiB | {mebibytes:.0f} MiB | |", mebibytes <= MOST_MEMORY


def imports(text: str) -> str:
    """The imports of a clean boot, but for the interpreter's own at its start."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.endswith("| site"))
    return "\n".join([lines[0], *lines[start + 1 :]]).replace("import time: ", "")


def booting(results: Path) -> str:
    """The figures of the virtual machines' tests on trixie, those of test_boot_order.py."""
    page = results.read_text() if results.exists() else ""
    lines = page.partition("## trixie\n")[2].partition("\n## ")[0].splitlines()
    return "\n".join(line for line in lines if line.startswith("- boot order")) or "(not run yet)"


SERIES = (
    ("unclean", "cni-lease-reset boot", "#1f6feb"),
    ("rm", "rm -rf", "#d29922"),
    ("tmpfiles", "systemd-tmpfiles", "#8250df"),
    ("find", "find -delete", "#2da44e"),
)


def plot(times: Times) -> str:
    """Draw time against leases, both by powers of ten."""
    sizes = (254, 4096, 65534)
    left, right, top, bottom = 95, 700, 30, 370

    def x(leases: float) -> float:
        return left + (log10(leases) - 2) / 3 * (right - left)

    def y(milliseconds: float) -> float:
        return bottom - log10(milliseconds) / 4 * (bottom - top)

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 430" font-family="sans-serif" font-size="14">',
        '<title>Time against the number of leases</title><rect width="900" height="430" fill="white"/>',
    ]
    for power in range(5):
        parts.append(f'<path d="M{left} {y(10**power):.0f}H{right}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{left - 8}" y="{y(10**power) + 5:.0f}" text-anchor="end">{10**power:,} ms</text>')
    for size in sizes:
        parts.append(f'<path d="M{x(size):.0f} {top}V{bottom}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{x(size):.0f}" y="{bottom + 22}" text-anchor="middle">{size:,} leases</text>')
    for number, (key, label, colour) in enumerate(SERIES):
        points = [(x(size), y(middle(times, f"{key}-{size}"))) for size in sizes]
        line = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" fill="{colour}"/>' for a, b in points]
        parts.append(f'<text x="{right + 14}" y="{top + 24 * number + 20}" fill="{colour}">{label}</text>')
    return "\n".join([*parts, "</svg>", ""])


def machine() -> str:
    """Say what was measured on."""
    systemd = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    model = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    python = subprocess.run(
        ["/usr/bin/python3", "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    linux = platform.release().partition("-")[0]
    return f"{model.partition(': ')[2]}, {os.cpu_count()} CPUs, Linux {linux}, {python}, systemd {systemd}"


def write(results: Results, docs: Path, template: Path) -> int:
    """Write the document, print its tables, and return 1 where a budget does not hold."""
    held = list(verdicts(results))
    budgets = "\n".join(f"{row} {'yes' if kept else '**no**'} |" for row, kept in held)
    warm, cold = ("\n".join(rows(results, cold=each)) for each in (False, True))
    text = template.read_text()
    values = {"budgets": budgets, "warm": warm, "cold": cold, "machine": machine(), "disk": results["disk"]}
    values |= {"imports": imports(results["imports"]), "booting": booting(docs / "VM-RESULTS.md")}
    for key, value in values.items():
        text = text.replace(f"{{{key}}}", value)
    (docs / "PERFORMANCE.md").write_text(text)
    (docs / "growth.svg").write_text(plot(results["times"]))
    print(f"{warm}\n\n{cold}\n\n{budgets}")
    return 0 if all(kept for _, kept in held) else 1
