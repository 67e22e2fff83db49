"""`make bench`: times the installed program as the unit starts it, and writes docs/PERFORMANCE.md and its plot.

The package is installed with rpm in a tree of its own (tests/clean-tree). /var/lib/cni is a journalled ext4 on a loop
device; a real D-Bus daemon answers, with a stand-in for systemd behind it; a socket takes what goes to the journal.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

TOP = Path(__file__).parents[2]
HERE = Path(__file__).parent
sys.path[:0] = [str(TOP / "tests"), str(HERE)]

import report  # noqa: E402
from programs import STAND_IN, running  # noqa: E402

CACHE = TOP / ".cache/bench"
IN_TREE = """
    mount -o loop {image} {node}/var/lib/cni  # gone with this namespace
    exec {top}/tests/clean-tree {node} '
        rpm --install --nodeps /run/package.rpm 2>/dev/null
        cd /
        exec python3 -I /run/measure.py {rounds}  # it is PID 1
    '
"""


def drain(listener: socket.socket) -> None:
    """Take what is sent to the journal."""
    while True:
        listener.recv(65536)


def measure(node: Path, image: Path, rounds: int) -> report.Results:
    """Make the node, and time everything there."""
    for folder in ("run/dbus", "run/systemd/journal", "var/lib/cni"):
        (node / folder).mkdir(parents=True)
    environment = {**os.environ, "DIST": str(node)}
    subprocess.run([TOP / "packaging/rpm/build"], env=environment, stdout=subprocess.DEVNULL, check=True)
    next(node.glob("*.noarch.rpm")).rename(node / "run/package.rpm")
    for name in ("node.py", "measure.py", "least.py", "held.py"):
        shutil.copy(HERE / name, node / "run")
    subprocess.run(["truncate", "--size=1G", image], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-N", "300000", "-E", "lazy_itable_init=0", image], check=True)
    bus = f"unix:path={node}/run/dbus/system_bus_socket"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(f"{node}/run/systemd/journal/socket")
    threading.Thread(target=drain, args=(listener,), daemon=True).start()
    with (
        running("dbus-daemon", "--session", "--nofork", "--nopidfile", f"--address={bus}", "--print-address"),
        running(sys.executable, STAND_IN, bus, "stopping"),
    ):
        script = IN_TREE.format(image=image, node=node, top=TOP, rounds=rounds)
        subprocess.run(["unshare", "--mount", "--propagation", "private", "sh", "-euc", script], check=True)
    results: report.Results = json.loads((node / "run/results.json").read_text())
    return results


def main() -> int:
    """Measure, print and write; the exit status tells whether every budget holds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15, help="of two runs each")
    parser.add_argument("--disk", type=Path, default=CACHE, help="folder on the disk that is to be measured")
    parser.add_argument("--report-only", action="store_true", help="write the document from the last results")
    options = parser.parse_args()
    kept = CACHE / "results.json"
    if not options.report_only:
        CACHE.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir="/dev/shm") as folder,  # /run is in memory
            tempfile.NamedTemporaryFile(dir=options.disk) as image,
        ):
            results = measure(Path(folder), Path(image.name), options.rounds)
        results["disk"] = "in memory" if str(options.disk).startswith("/dev/shm") else "on a disk"
        kept.write_text(json.dumps(results))
    return report.write(json.loads(kept.read_text()), TOP / "docs", HERE / "template.md")


if __name__ == "__main__":
    sys.exit(main())
