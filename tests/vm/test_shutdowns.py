"""Every way to go down, and what the next boot makes of it."""

from node import STATE, UNIT, Node

# Kills our process once it has used up the clean mark: sooner it has not run at all, later it has done its work.
KILLER = f"""[Unit]
Description=Kill cni-lease-reset in the middle of its work
DefaultDependencies=no
After=local-fs.target lab-before.service
Before={UNIT}
[Service]
ExecStart=/usr/bin/python3 -c '
import os, signal
while True:
    with open("{STATE}/marker") as file:
        if "state=running" in file.read():
            break
for pid in filter(str.isdecimal, os.listdir("/proc")):
    with open("/proc/" + pid + "/cmdline") as file:
        if "/usr/bin/cni-lease-reset\\0boot" in file.read():
            os.kill(int(pid), signal.SIGKILL)
'
[Install]
WantedBy=multi-user.target
"""


def _boots_with(node: Node, verdict: str, *, cleared: int) -> None:
    entry = node.verdict()
    assert entry.verdict == verdict, entry
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
    with node.scenario("sysrq b"):
        node.goes_down("echo b >/proc/sysrq-trigger")
        _boots_with(node, "unclean", cleared=3)
    with node.scenario("kernel panic"):
        node.goes_down("echo c >/proc/sysrq-trigger")
        _boots_with(node, "unclean", cleared=3)
    with node.scenario("kill -9 of cni-lease-reset during boot, then reboot"):
        node.write("/etc/systemd/system/lab-killer.service", KILLER)
        node.run("systemctl enable lab-killer && sync")
        node.goes_down("systemctl reboot")
        node.settled()
        assert node.show(UNIT, "Result") == "signal"
        assert node.verdicts() == ()
        assert node.marker()["state"] == "running"
        assert len(node.pods().started) == 3
        node.run("systemctl disable lab-killer && sync")
        node.goes_down("systemctl reboot")
        _boots_with(node, "unclean", cleared=6)
