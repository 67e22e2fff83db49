"""The main job on real input: exhaust a host-local pool, cut the power, boot, and allocate again."""

import subprocess
import sys
import tempfile
from pathlib import Path

from tree import OTHER, THIS, HostLocal, Tree

COMMAND = (sys.executable, "-m", "cni_lease_reset")


def step(text: str) -> None:
    """Announce a step."""
    print(f"\n* {text}", flush=True)


def run(tree: Tree, *arguments: str) -> None:
    """Run the command and show what it prints; a failure ends the demo."""
    print(f"  $ cni-lease-reset --root NODE {' '.join(arguments)}", flush=True)
    done = subprocess.run([*COMMAND, "--root", str(tree.root), *arguments], text=True, capture_output=True, check=False)
    for line in (done.stderr + done.stdout).replace(str(tree.root), "NODE").splitlines():
        print(f"  | {line}".rstrip())
    expect(done.returncode == 0, f"it exits with {done.returncode}")


def expect(held: bool, otherwise: str) -> None:
    """End the demo with an error where something does not behave."""
    if not held:
        sys.exit(f"demo: {otherwise}")


def main() -> None:
    """Play it."""
    with tempfile.TemporaryDirectory() as directory:
        tree = Tree(Path(directory))
        tree.next_kernel(OTHER)
        plugin = HostLocal(tree)
        step("A node boots for the first time; its pods get addresses from 10.52.0.0/24 until host-local has no more.")
        run(tree, "boot")
        given = plugin.exhaust()
        refused = plugin.run("ADD", "one-more").stdout
        expect("no IP addresses available in range set" in refused, "host-local did not run out of addresses")
        print(f"  {given} addresses given out, then: no IP addresses available in range set: 10.52.0.1-10.52.0.254")

        step("The power is cut: the marker still says running. The node comes back with another boot id.")
        tree.next_kernel(THIS)
        run(tree, "status")

        step("cni-lease-reset runs before RKE2 starts. This line goes to the journal.")
        run(tree, "boot")
        expect(not tree.leases(), "leases are left")
        expect(len(tree.set_aside()) == given, "a lease was lost")

        step("What it did:")
        run(tree, "status")

        step("host-local hands out addresses again:")
        address = plugin.add("new")
        print(f"  10.52.0.0/24 gave {address} to a new pod")


if __name__ == "__main__":
    main()
