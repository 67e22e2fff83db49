"""Every way to go down, and what the next boot makes of it."""

from typing import Final

import pytest
from node import CONFIG, LEASES, RKE2, STATE, UNIT, Node

# Kills our process once it has begun to move leases; there are so many that it cannot be done by then.
KILLER = f"""
import os, signal, socket
before = set(os.listdir("{STATE}/set-aside"))
def moves():
    try:
        return any(os.listdir(f"{STATE}/set-aside/{{new}}/k8s-pod-network") for new in {{*os.listdir("{STATE}/set-aside")}} - before)
    except FileNotFoundError:  # not made yet
        return False
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
    notifier.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
while not moves():
    pass
for pid in filter(str.isdecimal, os.listdir("/proc")):
    try:
        with open("/proc/" + pid + "/cmdline") as file:
            if "/usr/bin/cni-lease-reset\\0boot" in file.read():
                os.kill(int(pid), signal.SIGKILL)
    except FileNotFoundError:  # it has ended meanwhile
        pass
"""
KILLER_UNIT = f"""[Unit]
Description=Kill cni-lease-reset in the middle of its work
DefaultDependencies=no
After=local-fs.target lab-before.service
Before={UNIT}
[Service]
Type=notify
ExecStart=/usr/bin/python3 /opt/lab-killer
[Install]
WantedBy=multi-user.target
"""
MANY = f"cd {LEASES} && for i in {{0..19}}; do for j in {{1..250}}; do echo old >10.99.$i.$j; done; done"

# It stops after us, and not before somebody has written to its FIFO: until then a shutdown can be cancelled.
HOLDS_UP: Final = "lab-holds-up.service"
FIFO: Final = "/run/lab-fifo"
HOLDS_UP_UNIT: Final = f"""[Unit]
Description=Hold up the shutdown once cni-lease-reset has stopped
Before={UNIT}
[Service]
Type=exec
TimeoutStopSec=10min
ExecStartPre=/usr/bin/mkfifo {FIFO}
ExecStart=/usr/bin/sleep infinity
ExecStop=/usr/bin/cat {FIFO}
[Install]
WantedBy=multi-user.target
"""
# Opening it for writing waits for its reader. What had stopped by then stays stopped; RKE2's pods want D-Bus.
CANCEL: Final = f"exec 3>{FIFO}; systemctl cancel; exec 3>&-; systemctl stop {HOLDS_UP}"
# Whether the system goes down must be answered in a second or two, which an emulated processor may miss.
CALLS: Final = "! cni-lease-reset status --check --json >/run/status && grep 'This boot is marked as clean' /run/status"
ONE_MORE_POD: Final = (
    "sed s/lab.pods=3/lab.pods=4/ /proc/cmdline >/run/cmdline; mount --bind /run/cmdline /proc/cmdline"
)


def _boots_with(node: Node, verdict: str, *, cleared: int, why: str = "") -> None:
    entry = node.verdict()
    assert entry.verdict == verdict, entry
    assert why in entry.message + entry.reason, entry
    assert entry.cleared == cleared, entry
    node.nothing_lost()
    pods = node.pods()
    assert len(pods.started) == 3, pods.errors
    node.run("sync")


def test_03_every_way_to_go_down(node: Node) -> None:
    node.start("lab.pods=3")
    _boots_with(node, "unknown", cleared=0)
    with node.scenario("systemctl reboot"):
        node.goes_down("systemctl reboot")
        _boots_with(node, "clean", cleared=0)
        assert len(node.leases()) == 6  # kubelet's to reclaim
    with node.scenario("systemctl poweroff --force"):
        node.goes_down("systemctl poweroff --force")
        _boots_with(node, "unclean", cleared=6)
    with node.scenario("systemctl reboot --force --force"):
        node.goes_down("systemctl reboot --force --force")
        _boots_with(node, "unclean", cleared=3)
    with node.scenario("sysrq b"):
        node.goes_down("echo b >/proc/sysrq-trigger")
        _boots_with(node, "unclean", cleared=3)
    with node.scenario("kernel panic"):
        node.goes_down("echo c >/proc/sysrq-trigger")
        _boots_with(node, "unclean", cleared=3)
    with node.scenario("kill -9 of cni-lease-reset during boot, then reboot"):
        node.write("/opt/lab-killer", KILLER)
        node.write("/etc/systemd/system/lab-killer.service", KILLER_UNIT)
        node.write(CONFIG, "clear_when: always\n")  # after the clean shutdown
        node.run(f"{MANY}; systemctl enable lab-killer && sync")
        node.goes_down("systemctl reboot")
        node.settled()
        assert node.show(UNIT, "Result") == "signal"
        assert node.verdicts() == ()
        assert node.marker() == {}, "it was taken before the first lease moved"
        left = len(node.leases())
        assert 0 < left < 5003, f"killed too late, or too early: {left} leases left"
        node.nothing_lost()
        assert len(node.pods().started) == 3
        node.run("systemctl disable lab-killer && sync")
        node.goes_down("systemctl reboot")
        _boots_with(node, "unknown", cleared=left + 3)


def test_17_a_cancelled_shutdown(node: Node) -> None:
    node.start("lab.pods=3")
    assert len(node.pods().started) == 3
    node.write(f"/etc/systemd/system/{HOLDS_UP}", HOLDS_UP_UNIT)
    node.run(f"systemctl daemon-reload; systemctl enable --now {HOLDS_UP}")

    with node.scenario("a shutdown is cancelled after we have marked it clean"):
        node.run("systemctl --no-block poweroff")
        node.run(CANCEL)
        assert node.show(UNIT, "ActiveState") == "inactive"
        assert node.marker()["state"] == "clean"
        node.wait_until(CALLS)

    with node.scenario("... a new pod, and a power cut: the mark is disproved"):
        node.run(f"{ONE_MORE_POD}; systemctl start dbus.service {RKE2}")
        pods = node.pods()
        assert pods.started, pods
        assert not pods.errors, pods
        assert node.marker()["state"] == "clean"
        leases = len(node.leases())
        node.run("sync")
        node.power_cut()
        _boots_with(node, "unknown", cleared=leases, why="is newer than the clean mark of")


# What lets pods live through a soft-reboot: the shims in RKE2's control group, the pods' own scopes, and their mounts.
SURVIVES: Final = "[Unit]\nSurviveFinalKillSignal=yes\n"
STAYS: Final = "[Unit]\nDefaultDependencies=no\n"
SURVIVORS: Final = {
    RKE2: SURVIVES,
    "cri-containerd-.scope": SURVIVES,
    "kubepods.slice": STAYS,
    "run-netns-.mount": STAYS,
    "run-netns.mount": STAYS,
    "run-k3s-.mount": STAYS,
}


def _same_boot(node: Node) -> None:
    """The kernel never went down: nothing is due, and our unit is up to mark the end."""
    node.settled()
    entry = node.verdict_again()
    assert (entry.verdict, entry.cleared) == ("same-boot", 0), entry
    assert node.marker()["state"] == "running"
    assert node.marker()["boot_id"] == node.run("cat /proc/sys/kernel/random/boot_id").strip()
    node.nothing_lost()


@pytest.mark.soft_reboot
def test_18_a_soft_reboot(node: Node) -> None:
    node.start("lab.pods=3")
    assert len(node.pods().started) == 3

    with node.scenario("soft-reboot: the pods end, their leases stay"):
        node.soft_reboot()
        _same_boot(node)
        pods = node.pods()
        assert (len(pods.started), pods.alive, pods.errors) == (3, (), ())
        assert len(node.leases()) == 6

    with node.scenario("... and a power cut"):
        for unit, text in SURVIVORS.items():  # for the pods of the next boot
            node.write(f"/etc/systemd/system/{unit}.d/survivors.conf", text)
        node.run("sync")
        node.power_cut()
        _boots_with(node, "unclean", cleared=6)

    with node.scenario("soft-reboot: the pods live on"), node.untouched_leases():
        node.soft_reboot()
        _same_boot(node)
        pods = node.pods()
        assert (len(pods.started), len(pods.alive), pods.errors) == (0, 3, ())

    with node.scenario("... and a power cut"):
        node.run("sync")
        node.power_cut()
        _boots_with(node, "unclean", cleared=3)
