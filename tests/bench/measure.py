"""Times the installed program and its rivals with hyperfine, in a tree where nothing else of ours is.

Runs as root "/" of that tree with nothing but the library; writes /run/results.json. Argument: how many rounds.
A round runs each command of a group twice, so that whatever else the machine does falls on all of them alike.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

RUNS = 2  # a round
NETWORK = Path("/var/lib/cni/networks/k8s-pod-network")
MARKER = Path("/var/lib/cni/cni-lease-reset/marker")
CONFIG = Path("/etc/cni-lease-reset/config.yaml")
RESULTS = Path("/run/results.json")
BOOT = "/usr/bin/cni-lease-reset boot"
RIVALS = {
    "rm": f"rm -rf {NETWORK}",
    "tmpfiles": "systemd-tmpfiles --remove --boot /run/rival.conf",
    "find": f"sh -c 'find {NETWORK} -type f -delete'",
}
LEAST = "python3 -I /run/least.py"


class Cell(NamedTuple):
    """One command on one stage."""

    name: str
    command: str
    scene: str
    leases: int
    setting: bool = False  # whether the configuration has one
    cold: bool = False

    timed: str | None = None  # a file where the command itself leaves the time that counts

    @property
    def prepare(self) -> str:
        """The command that sets the stage."""
        flags = ("setting",) * self.setting + ("cold",) * self.cold
        return " ".join(("python3 -I /run/node.py", self.scene, str(self.leases), *flags))


def rivals(leases: int, *, cold: bool = False) -> list[Cell]:
    """What a user would pick instead."""
    suffix = "-cold" * cold
    return [Cell(f"{name}-{leases}{suffix}", each, "rival", leases, cold=cold) for name, each in RIVALS.items()]


FLOOR = Cell("floor", "python3 -I -c pass", "clean", 254)
RECOVER = (
    FLOOR._replace(name="floor-recover"),
    Cell("recover-253", "/usr/bin/cni-lease-reset recover --yes", "recover", 253),
    Cell("lock-253", "python3 -I /run/held.py", "recover", 253, timed="/run/held"),
)
NAMESPACES, PROCESSES = 110, 200  # of a node with as many pods as kubelet starts
GROUPS = (
    (
        FLOOR,
        Cell("clean-0", BOOT, "clean", 0),
        Cell("clean-254", BOOT, "clean", 254),
        Cell("setting-254", BOOT, "clean", 254, setting=True),
        Cell("unclean-0", BOOT, "unclean", 0),
        Cell("unclean-254", BOOT, "unclean", 254),
        Cell("shutdown-254", "/usr/bin/cni-lease-reset shutdown", "running", 254),
        *rivals(254),
    ),
    (Cell("unclean-4096", BOOT, "unclean", 4096), Cell("least-4096", LEAST, "rival", 4096), *rivals(4096)),
    (Cell("unclean-65534", BOOT, "unclean", 65534), Cell("least-65534", LEAST, "rival", 65534), *rivals(65534)),
    (
        FLOOR._replace(name="floor-cold", cold=True),
        Cell("clean-254-cold", BOOT, "clean", 254, cold=True),
        Cell("unclean-254-cold", BOOT, "unclean", 254, cold=True),
        Cell("unclean-4096-cold", BOOT, "unclean", 4096, cold=True),
        *rivals(254, cold=True)[:2],
        *rivals(4096, cold=True)[:2],
    ),
)


def check(cell: Cell) -> int:
    """Run a cell's command once, see that it does what it is timed for, and return its peak memory in KiB."""
    subprocess.run(cell.prepare.split(), check=True)
    command = ["sh", "-c", f"exec {cell.command}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    done = (process.returncode, said) == (0, b"")  # it says everything in the journal
    left = len([name for name in os.listdir(NETWORK) if name[0] == "1"]) if NETWORK.is_dir() else 0
    aside = sum(len(files) for _, _, files in os.walk("/var/lib/cni/cni-lease-reset/set-aside"))
    if cell.command == BOOT:
        done &= "state=running" in MARKER.read_text()
        done &= aside == (cell.leases + 1 if cell.scene == "unclean" and cell.leases else 0)  # and the reason
    elif cell.scene == "recover":
        done = process.returncode == 0 and left == 0 and aside == cell.leases + 1
    elif cell.scene == "running":
        done &= "state=clean" in MARKER.read_text()
    elif cell.scene == "rival":
        done &= left == 0
    if not done:
        sys.exit(f"{cell.name}: not what should be timed: {process.returncode} {said!r} {left} left, {aside} set aside")
    return int(usage.ru_maxrss)


def time_once(group: tuple[Cell, ...], times: dict[str, list[list[float]]], cpu: dict[str, list[float]]) -> None:
    """Add a round of a group: the time of each run, and the mean CPU time of them, in seconds."""
    command = ["hyperfine", "-N", "--style=none", f"--runs={RUNS}", "--export-json=/run/round.json"]
    command += [f"--warmup={0 if group[0].cold else 1}"]
    for cell in group:
        if cell.timed is None:
            command += ["--prepare", cell.prepare, cell.command]
    # It warns of what two runs cannot settle; fifteen rounds can.
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    by_hyperfine = [cell for cell in group if cell.timed is None]
    for cell, result in zip(by_hyperfine, json.loads(Path("/run/round.json").read_text())["results"], strict=True):
        times.setdefault(cell.name, []).append(result["times"])
        cpu.setdefault(cell.name, []).append(result["user"] + result["system"])
    for cell in group:
        if cell.timed is not None:
            times.setdefault(cell.name, []).append([_own_time(cell) for _ in range(RUNS)])
            cpu.setdefault(cell.name, []).append(0.0)


def _own_time(cell: Cell) -> float:
    subprocess.run(cell.prepare.split(), check=True)
    subprocess.run(cell.command.split(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return float(Path(str(cell.timed)).read_text())


def become_a_node() -> list[subprocess.Popen[bytes]]:
    """Be a PID 1 called systemd, with a full node's mounted network namespaces and processes."""
    Path("/proc/self/comm").write_text("systemd")
    os.makedirs("/run/systemd/system", exist_ok=True)
    os.makedirs("/run/netns", exist_ok=True)
    for number in range(NAMESPACES):
        Path(f"/run/netns/cni-{number}").touch()
        subprocess.run(["unshare", f"--net=/run/netns/cni-{number}", "true"], check=True)
    ids = (f"{number:064x}" for number in range(PROCESSES))
    shim = ("-namespace", "k8s.io", "-address", "/run/k3s/containerd/containerd.sock", "-id")
    script = ["python3", "-I", "-S", "-c", "import signal; signal.pause()"]
    return [subprocess.Popen([*script, *shim, each]) for each in ids]


def import_times() -> str:
    """What the imports of a clean boot cost, as Python tells it."""
    subprocess.run(FLOOR.prepare.split(), check=True)
    command = ["python3", "-I", "-X", "importtime", *BOOT.split()]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, check=True).stderr


def main() -> None:
    """Check, then time round after round."""
    Path("/run/rival.conf").write_text(f"R! {NETWORK}\n")
    began = time.monotonic()
    times: dict[str, list[list[float]]] = {}
    cpu: dict[str, list[float]] = {}
    memory = {}
    for group in (*GROUPS, RECOVER):
        if group is RECOVER:
            others = become_a_node()
        for cell in group:
            memory[cell.name] = check(cell)
        for number in range(int(sys.argv[1])):
            time_once(group, times, cpu)
            print(f"{time.monotonic() - began:4.0f} s: {group[0].name}, round {number + 1}", flush=True)
    for process in others:
        process.kill()
        process.wait()
    imports = min((import_times() for _ in range(5)), key=lambda text: int(text.splitlines()[-1].split("|")[1]))
    RESULTS.write_text(json.dumps({"times": times, "cpu": cpu, "memory": memory, "imports": imports}))


if __name__ == "__main__":
    main()
