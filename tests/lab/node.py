"""A node of the lab: a machine with the product, and a stand-in for RKE2 that leaves three leases a start."""

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from conftest import TOP

from cni_lease_reset.core.model import Marker, NoMarker, Reading
from cni_lease_reset.edges import marker

from .machine import Machine

HERE: Final = Path(__file__).parent
UNIT: Final = "cni-lease-reset.service"
RKE2: Final = "rke2-server.service"
STATE: Final = "var/lib/cni/cni-lease-reset"
LEASES: Final = "var/lib/cni/networks/k8s-pod-network"
CONFIG: Final = "etc/cni-lease-reset/config.yaml"
LAUNCHER: Final = "usr/bin/cni-lease-reset"
OVERRIDE: Final = f"etc/systemd/system/{UNIT}"
_UNITS: Final = "usr/lib/systemd/system"
_EARLY: Final = "lab-early.service"
_EARLY_FILES: Final = (f"etc/systemd/system/{_EARLY}", f"etc/systemd/system/multi-user.target.wants/{_EARLY}")

# As the packages do: byte-code, and the unit enabled.
_POSTINST: Final = """
mount -t overlay -o "lowerdir=$1,upperdir=$2,workdir=$3" lab /mnt
mount --bind /proc /mnt/proc
chroot /mnt sh -euc "python3 -m compileall -q /usr/lib/cni-lease-reset; systemctl -q enable $4 $5"
"""


def install(layer: Path, image: str) -> None:
    """Put the product and the stand-ins into a layer above the image."""
    package = "usr/lib/cni-lease-reset/cni_lease_reset"
    shutil.copytree(TOP / "cni_lease_reset", layer / package, ignore=shutil.ignore_patterns("__pycache__"))
    for source, place in (
        (TOP / "packaging/rpm/cni-lease-reset", LAUNCHER),
        (TOP / f"packaging/systemd/{UNIT}", f"{_UNITS}/{UNIT}"),
        (HERE / f"stand-in/{RKE2}", f"{_UNITS}/{RKE2}"),
        (HERE / "stand-in/rke2-server", "usr/lib/lab/rke2-server"),
        (HERE / "stand-in/signal-boot", "usr/lib/lab/signal-boot"),
    ):
        (layer / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, layer / place)
    work = layer.with_name(f"{layer.name}-work")
    work.mkdir()
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", _POSTINST, "sh", image]
    subprocess.run([*command, str(layer), str(work), UNIT, RKE2], check=True)


class Node(Machine):
    """What the tests ask of a node, on or off."""

    def write(self, path: str, content: str, mode: int = 0o644) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        file.chmod(mode)

    def mask(self) -> None:
        """Mask our unit."""
        unit = self.root / OVERRIDE
        unit.parent.mkdir(parents=True, exist_ok=True)
        unit.symlink_to("/dev/null")

    def early(self, *directives: str) -> None:
        """Have a unit that starts before ours, and so stops after it."""
        unit, wanted = _EARLY_FILES
        self.write(unit, "\n".join(("[Unit]", f"Before={UNIT}", "[Service]", *directives, "")))
        (self.root / wanted).parent.mkdir(parents=True, exist_ok=True)
        (self.root / wanted).symlink_to(f"/{unit}")

    def mend(self) -> None:
        """Take all of this away, while it is off."""
        for path in (CONFIG, LAUNCHER, OVERRIDE, *_EARLY_FILES):
            (self.root / path).unlink(missing_ok=True)

    def leases(self) -> frozenset[str]:
        return frozenset(path.name for path in (self.root / LEASES).glob("10.*"))

    def torn(self) -> frozenset[str]:
        return frozenset(path.name for path in (self.root / LEASES).glob("10.*") if not path.stat().st_size)

    def marker(self) -> Reading:
        try:
            return marker.parse((self.root / STATE / "marker").read_bytes())
        except FileNotFoundError:
            return NoMarker()

    def marked(self) -> str:
        """How the marker says that this boot ended, or that there is none."""
        found = self.marker()
        if isinstance(found, NoMarker):
            return "none"
        assert isinstance(found, Marker), found
        assert found.boot_id == self.boot_id, "it is another boot's"
        return found.state

    def set_aside(self, reset: str) -> frozenset[str]:
        """The leases of a reset."""
        return frozenset(path.name for path in (self.root / STATE / "set-aside" / reset).glob("*/10.*"))

    def entries(self) -> tuple[dict[str, str], ...]:
        """What our unit said in the journal of this boot."""
        self.run("journalctl --sync")
        lines = self.run(f"journalctl --unit={UNIT} --output=json").splitlines()
        return tuple(json.loads(line) for line in lines)

    def verdicts(self) -> tuple[dict[str, str], ...]:
        return tuple(entry for entry in self.entries() if "CNI_VERDICT" in entry)

    def show(self, *properties: str, unit: str = UNIT) -> tuple[str, ...]:
        """Properties of a unit."""
        lines = self.run(f"systemctl show {unit} --property={','.join(properties)}").splitlines()
        found = dict(line.split("=", 1) for line in lines)
        return tuple(found[each] for each in properties)

    @contextmanager
    def our_lock(self) -> Iterator[int]:
        """Hold our own lock, as another of our commands does; yields its inode."""
        directory = os.open(self.root / STATE, os.O_RDONLY)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield os.fstat(directory).st_ino
        finally:
            os.close(directory)
