"""Sets a node's stage before a run that is timed. Runs as root "/" of a clean tree, with nothing but the library.

Arguments: the scene, the number of leases, and ``setting`` or ``cold``. Scenes: ``clean`` (kept leases, a clean mark),
``unclean``, ``running`` (this boot's own marker, for shutdown), ``rival`` (leases for somebody who removes them), and ``recover``.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

CNI = Path("/var/lib/cni")
NETWORK = CNI / "networks/k8s-pod-network"
SECOND = CNI / "networks/cbr0"
CONFIG = Path("/etc/cni-lease-reset/config.yaml")
STATE = CNI / "cni-lease-reset"
LEASE = f"{'ab' * 32}\r\neth0".encode()
OTHER = "22222222-2222-4222-8222-222222222222"


def addresses(number: int) -> list[str]:
    """Addresses of 10.52.0.0/16, as host-local gives them out."""
    return [f"10.{52 + n // 65536}.{n // 256 % 256}.{n % 256}" for n in range(2, number + 2)]


def fill(network: Path, names: list[str]) -> None:
    """Write the leases of a network whose directory does not have just these."""
    network.mkdir(parents=True, exist_ok=True)
    (network / "lock").touch()
    (network / "last_reserved_ip.0").write_text(names[-1] if names else "")
    for name in names:
        with open(f"{network}/{name}", "wb") as file:
            file.write(LEASE)


def take_back(number: int) -> bool:
    """Put the folder of the last reset where the network was, if it holds all its leases; a rename, not a rewrite."""
    for folder in (STATE / "set-aside").glob(f"*/{NETWORK.name}"):
        if len(os.listdir(folder)) == number:
            shutil.rmtree(NETWORK)
            folder.rename(NETWORK)
            (NETWORK / "lock").touch()
            (NETWORK / "last_reserved_ip.0").touch()
            return True
    return False


def leases(scene: str, number: int) -> None:
    """Lay the leases out. 254 leases that a clean boot keeps are those of 110 pods with two addresses, and 34 more."""
    if scene == "unclean" and take_back(number):
        return
    counts = [len(os.listdir(each)) for each in (NETWORK, SECOND) if each.is_dir()]
    if (scene == "clean" and len(counts) == 2 and sum(counts) == number + 4) or (
        scene != "clean" and counts == [number + 2]
    ):
        return
    shutil.rmtree(CNI / "networks", ignore_errors=True)
    if scene == "clean":
        four = addresses(min(number, 110))
        six = [f"fd00:52::{n:x}" for n in range(2, min(number - len(four), 110) + 2)]
        fill(NETWORK, four + six)
        fill(SECOND, addresses(number - len(four) - len(six)))
    else:
        fill(NETWORK, addresses(number))
    if scene == "recover":  # whose leases are not young
        hour = time.time() - 3600
        for name in os.listdir(NETWORK):
            os.utime(NETWORK / name, (hour, hour))
    subprocess.run(["sync", "--file-system", CNI], check=True)  # as they lie there after a power cut


def main() -> None:
    """Set the stage."""
    scene, number = sys.argv[1], int(sys.argv[2])
    leases(scene, number)
    shutil.rmtree(STATE, ignore_errors=True)
    shutil.rmtree("/run/cni-lease-reset", ignore_errors=True)
    STATE.mkdir()
    os.mkdir("/run/cni-lease-reset")  # RuntimeDirectory=
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip() if scene == "running" else OTHER
    state = "clean" if scene == "clean" else "running"
    (STATE / "marker").write_text(f"state={state}\nboot_id={boot_id}\nsince=2026-11-23T06:12:01Z\n")
    shipped = [line for line in CONFIG.read_text().splitlines() if line.startswith("#") or not line]
    CONFIG.write_text("\n".join([*shipped, *(["keep_resets: 3"] if "setting" in sys.argv else []), ""]))
    if "cold" in sys.argv:
        subprocess.run(["sync", "--file-system", CNI], check=True)
        Path("/proc/sys/vm/drop_caches").write_text("3")


if __name__ == "__main__":
    main()
