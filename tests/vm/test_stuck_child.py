"""A child in D state, that looks who lives, holds up neither RKE2 nor the stop of our unit."""

from typing import Final, NamedTuple

import never_answers
import pytest
from node import CONFIG, NETWORKS, RKE2, UNIT, Node

from cni_lease_reset.edges.lock import WHO_LIVES

LISTED: Final = "/run/containers/storage/overlay-containers"  # CRI-O's: the child lists it, nobody else here does
STUCK: Final = "lab-stuck.service"
LOCKED: Final = f"{NETWORKS}/storage/lock"
CONTROL: Final = f"/etc/systemd/system/{UNIT}.d/lab-control.conf"  # after emulated.conf
KILL_ALL: Final = "[Service]\nKillMode=control-group\nTimeoutStopSec={}\n"
STOP_SECONDS: Final = 20  # the control's TimeoutStopSec; it passes four times: SIGTERM, SIGKILL, and both again
LATE: Final = f"who lives cannot be told: no answer within {WHO_LIVES:g} s; the runtime never ran, ignoring"
AT_ONCE: Final = 10  # guest seconds between two acts of systemd, on an emulated processor; it would wait for 4 x 10 min

# A child that is late makes a doubt, and that is a remark only where systemd said in time that nothing ran yet. In the
# thick of an emulated boot it takes longer than the 3 s that we give it: first wait until that is over.
PROMPT: Final = "busctl get-property {0} /org/freedesktop/systemd1 {0}.Manager SystemState".format(
    "org.freedesktop.systemd1"
)
STUCK_UNIT: Final = f"""[Unit]
Description=The test bed's file system that never answers
DefaultDependencies=no
RequiresMountsFor=/var/lib/cni
After=local-fs.target lab-before.service dbus.service
Before={UNIT} shutdown.target
Conflicts=shutdown.target
[Service]
Type=notify
TimeoutStartSec=10min
ExecStartPre=/sbin/modprobe fuse
ExecStartPre=/bin/bash -c "udevadm settle; until timeout 1 {PROMPT}; do :; done; python3 -c 'import pystemd.dbuslib'"
ExecStart=/usr/bin/python3 /opt/lab-stuck {LISTED} {{options}}
ExecStopPost=-/bin/umount -l {LISTED}
[Install]
WantedBy=multi-user.target
"""


class Process(NamedTuple):
    """A process that is left in our unit's control group."""

    pid: str
    state: str
    killed: bool  # SIGKILL is on its way to it
    command: str


def _left_behind(node: Node) -> tuple[Process, ...]:
    """What is in our unit's control group; the kernel keeps the group as long as there is somebody."""
    each = "stat=$(<$p/stat); stat=${stat##*) }; pending=$(sed -n 's/^SigPnd:\\t//p' $p/status)"
    line = "echo $(basename $p) ${stat%% *} $((0x$pending >> 8 & 1)) $(tr '\\0' ' ' <$p/cmdline)"
    group = f"/sys/fs/cgroup/system.slice/{UNIT}/cgroup.procs"
    found = node.run(f"[ ! -e {group} ] || for pid in $(<{group}); do p=/proc/$pid; {each}; {line}; done").splitlines()
    rows = [row.split(maxsplit=3) for row in found]
    return tuple(Process(pid, state, killed == "1", command) for pid, state, killed, command in rows)


def _one_stuck(node: Node) -> Process:
    """Without it nothing is proved: one process of ours that SIGKILL did not end."""
    (process,) = _left_behind(node)
    assert process.state == "D", process
    assert process.killed, process
    assert process.command.split()[-2:] == ["/usr/bin/cni-lease-reset", "boot"], process
    return process


def _with_stuck_child(node: Node, options: str = "") -> None:
    """Make the next boots' child hang."""
    node.write("/opt/lab-stuck", never_answers.PROGRAM)
    node.write(f"/etc/systemd/system/{STUCK}", STUCK_UNIT.format(options=options))
    node.run(f"systemctl enable {STUCK}; sync")


def _boot_ended(node: Node) -> None:
    """The child's 5 s passed, and the unit's own limits would not have."""
    took = node.moment(UNIT, "ExecMainExit") - node.moment(UNIT, "ExecMainStart")
    node.figure(f"boot took {took:.1f} s")
    assert 5 < took < 60


def _stopped(node: Node) -> float:
    """Stop our unit and return how long systemd waited after our ExecStop had ended."""
    node.run(f"systemctl stop {UNIT}")
    path = f"/org/freedesktop/systemd1/unit/{UNIT.replace('-', '_2d').replace('.', '_2e')}"
    asked = f"busctl get-property org.freedesktop.systemd1 {path} org.freedesktop.systemd1.Service ExecStop"
    ended = int(node.run(asked).split()[-4])  # … pid, code, status come after
    return node.moment(UNIT, "InactiveEnter") - ended / 1e6


def _stopped_in_shutdown(node: Node) -> float:
    """How long our unit took to stop when the last boot went down."""
    lines = node.run(f"journalctl -b -1 -o short-monotonic --no-pager -u {UNIT}").splitlines()
    began, ended = ([line for line in lines if f"{word} {UNIT}" in line][-1] for word in ("Stopping", "Stopped"))
    assert lines.index(began) < lines.index(ended)
    return float(ended.strip("[ ").split("]")[0]) - float(began.strip("[ ").split("]")[0])


def _rke2_waited(node: Node) -> float:
    """How long after our boot had ended RKE2 began."""
    node.wait_until(f"[[ $(systemctl show -P InactiveExitTimestampMonotonic {RKE2}) != 0 ]]")
    return node.moment(RKE2, "InactiveExit") - node.moment(UNIT, "ExecMainExit")


def _pods_start(node: Node) -> None:
    pods = node.pods()
    assert (len(pods.started), pods.errors) == (2, ())
    node.run("sync")


@pytest.mark.alone
def test_16_a_child_in_d_state_holds_up_nobody(node: Node) -> None:
    node.start("lab.pods=2")
    _pods_start(node)
    _with_stuck_child(node)

    with node.scenario("a child in D state: boot clears, RKE2 starts"):
        node.power_cut()
        verdict = node.verdict()
        assert (verdict.verdict, verdict.found, verdict.cleared) == ("unclean", 2, 2)
        stuck = _one_stuck(node)
        assert node.show(UNIT, "ActiveState") == "active"
        assert LATE in node.said()
        _boot_ended(node)
        waited = _rke2_waited(node)
        node.figure(f"RKE2 began {waited:.2f} s after boot had ended")
        assert waited < AT_ONCE
        node.nothing_lost()
        _pods_start(node)
        assert _one_stuck(node) == stuck

    with node.scenario("... and our unit stops at once"), node.untouched_leases():
        waited = _stopped(node)
        node.figure(f"systemd ended the stop {waited:.2f} s after ExecStop")
        assert waited < AT_ONCE
        assert node.show(UNIT, "ActiveState") == "inactive"
        assert node.show(UNIT, "Result") == "success"
        assert _one_stuck(node) == stuck

    with node.scenario("... which takes its time with KillMode=control-group (control)"), node.untouched_leases():
        node.write(CONTROL, KILL_ALL.format(STOP_SECONDS))
        node.run(f"systemctl daemon-reload; systemctl start {UNIT}")
        assert _one_stuck(node) == stuck
        waited = _stopped(node)
        node.figure(f"systemd ended the stop {waited:.2f} s after ExecStop, TimeoutStopSec={STOP_SECONDS}")
        assert waited > 2 * STOP_SECONDS
        assert "State 'stop-sigterm' timed out" in node.said()
        assert _one_stuck(node) == stuck

    with node.scenario("... and our unit stops at once in a shutdown, too"):
        node.write(CONFIG, "networks: [k8s-pod-network, storage]\nclear_when: always\n")
        node.run(f"mkdir -p {NETWORKS}/storage && printf 'somebody\\r\\neth0' >{NETWORKS}/storage/10.99.0.2")
        _with_stuck_child(node, f"--lock {LOCKED}")
        node.run(f"rm {CONTROL}; sync; systemctl daemon-reload; systemctl start {UNIT}")
        assert _one_stuck(node) == stuck
        node.goes_down("systemctl reboot")
        assert node.verdict().verdict == "clean"
        waited = _stopped_in_shutdown(node)
        node.figure(f"Stopping to Stopped {waited:.1f} s, ExecStop and all")
        assert waited < 6 * AT_ONCE  # ExecStop is an interpreter's start

    with node.scenario("a child in D state: boot exits 74, RKE2 starts"):
        _fails(node)
        waited = _rke2_waited(node)
        node.figure(f"RKE2 began {waited:.2f} s after boot had ended")
        assert waited < AT_ONCE
        assert "timed out" not in node.said()
        _pods_start(node)
        _one_stuck(node)

    with node.scenario("... which waits with KillMode=control-group (control)"):
        node.write(CONTROL, KILL_ALL.format(STOP_SECONDS))
        node.power_cut()
        _fails(node)
        waited = _rke2_waited(node)
        node.figure(f"RKE2 began {waited:.2f} s after boot had ended, TimeoutStopSec={STOP_SECONDS}")
        assert waited > 2 * STOP_SECONDS
        assert "State 'stop-sigterm' timed out" in node.said()
        _pods_start(node)
        stuck = _one_stuck(node)

    with node.scenario("... until the file system goes"):
        node.run(f"systemctl stop {STUCK}")
        node.wait_until(f"[ ! -e /proc/{stuck.pid} ]")
        assert _left_behind(node) == ()


def _fails(node: Node) -> None:
    """One network is busy, of the other one the leases go."""
    verdict = node.verdict()
    assert (verdict.found, verdict.cleared) == (3, 2), verdict
    assert "storage" in verdict.reason
    assert node.show(UNIT, "ActiveState") == "failed"
    assert node.show(UNIT, "ExecMainStatus") == "74"
    _one_stuck(node)
    assert LATE in node.said()
    _boot_ended(node)
    node.nothing_lost()
