"""PID 1 of the small machine: it furnishes it, starts the storm, and reaps like any init.

``recover`` speaks for a whole machine only: PID 1 is called systemd, ``/run/systemd/system`` is there, and ``/proc`` shows
every process. So ``unshare`` gives this process a mount, PID, network, UTS, IPC and time namespace (it has been up for two
hours) and a fresh ``/proc``, and the rest happens here.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

TOP: Final = Path(__file__).parents[3]
ALONE: Final = (
    *("unshare", "--fork", "--kill-child", "--mount", "--pid", "--net", "--uts", "--ipc", "--mount-proc"),
    *("--time", "--boottime", "7200"),
)
NETWORKS: Final = ("k8s-pod-network", "cbr0", "sandboxed")


def mount(*arguments: str) -> None:
    subprocess.run(("mount", *arguments), check=True)


def furnish(scratch: Path) -> None:
    """Give the machine a /run, a /var/lib/cni and an /etc/cni-lease-reset of its own."""
    forget_other_namespaces()
    mount("-t", "tmpfs", "storm", str(scratch))
    for place in ("/etc/cni-lease-reset", "/var/lib/cni"):
        provide(Path(place), scratch)
        mount("-t", "tmpfs", "storm", place)
    mount("-t", "tmpfs", "storm", "/run")
    for place in ("/run/systemd/system", "/run/netns", "/var/lib/cni/networks"):
        os.makedirs(place)
    Path("/etc/cni-lease-reset/config.yaml").write_text(f"networks: [{', '.join(NETWORKS)}]\n")


def forget_other_namespaces() -> None:
    """Take away what is mounted of the surrounding machine's pods; below the new /run nobody could enter it."""
    subprocess.run(("umount", "--all", "--lazy", "--types", "nsfs"), check=True)


def provide(place: Path, scratch: Path) -> None:
    """Make a directory to mount on, without a trace on the surrounding machine."""
    if place.is_dir():
        return
    upper, work = scratch / f"{place.name}-upper", scratch / f"{place.name}-work"
    upper.mkdir()
    work.mkdir()
    mount("-t", "overlay", "storm", str(place.parent), "-o", f"lowerdir={place.parent},upperdir={upper},workdir={work}")
    place.mkdir()


def reap_until_the_end_of(child: int) -> int:
    while True:
        ended, status = os.wait()
        if ended == child:
            return os.waitstatus_to_exitcode(status)


def main(scratch: str, storm: str) -> int:
    Path("/proc/self/comm").write_text("systemd")
    furnish(Path(scratch))
    child = os.fork()
    if child == 0:
        os.execv(sys.executable, (sys.executable, "-B", "-m", "faults.storm.run", storm))
    return reap_until_the_end_of(child) & 0xFF


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
