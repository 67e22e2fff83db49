"""The unit's sandbox: inside it the program can do what it must and nothing else, and where it fails somebody says so."""

import json

from node import STATE, UNIT, Node

CNI = "/var/lib/cni"
DROP_IN = f"/etc/systemd/system/{UNIT}.d/cage.conf"
METRICS = "/var/lib/prometheus/node-exporter"
METRICS_UNIT = "cni-lease-reset-metrics.service"
METRICS_PATIENCE = f"/etc/systemd/system/{METRICS_UNIT}.d/emulated.conf"
OWNERS = f"stat -c '%n %a %u:%g' {CNI} {CNI}/networks {CNI}/networks/k8s-pod-network"

# Runs in the program's place and prints what each attempt came to: "done", or the error's name.
PROBE = """
import ctypes, errno, json, mmap, os, socket
libc = ctypes.CDLL(None, use_errno=True)

def system_call(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")

def connect(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM if "journal" in path else socket.SOCK_STREAM) as one:
        one.connect(path)

def attempt(what, *arguments):
    try:
        return "done", what(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno], None

def read(path):
    with open(path) as file:
        return file.read()

def write(path):
    with open(path, "w") as file:
        file.write("x")

def shims():
    commands = [open(f"/proc/{pid}/cmdline", "rb").read() for pid in os.listdir("/proc") if pid.isdecimal()]
    return sum(b"containerd-shim" in command for command in commands)

must = {
    "write below /var/lib/cni": (write, "/var/lib/cni/cni-lease-reset/probe"),
    "rename below /var/lib/cni": (os.rename, "/var/lib/cni/cni-lease-reset/probe", "/var/lib/cni/probe"),
    "remove it": (os.unlink, "/var/lib/cni/probe"),
    "write below /run/cni-lease-reset": (write, "/run/cni-lease-reset/probe"),
    "see shims": (shims,),
    "see a data directory in somebody's home": (read, "/home/somebody/lease"),
    "see one in root's home": (read, "/root/lease"),
    "read the boot id": (read, "/proc/sys/kernel/random/boot_id"),
    "talk to D-Bus": (connect, "/run/dbus/system_bus_socket"),
    "talk to journald": (connect, "/run/systemd/journal/socket"),
}
folders = ("/etc", "/usr", "/opt", "/boot", "/srv", "/var", "/var/lib", "/var/log", "/var/lib/rancher", "/run", "/root",
           "/home", "/dev", "/sys/fs/cgroup", "/etc/cni-lease-reset", "/usr/lib/cni-lease-reset")
must_not = {
    **{f"write below {folder}": (write, f"{folder}/probe") for folder in folders},
    "write to the kernel's settings": (write, "/proc/sys/kernel/hostname"),
    **{f"open a socket of {family.name}": (socket.socket, family, kind) for family, kind in (
        (socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET6, socket.SOCK_DGRAM),
        (socket.AF_NETLINK, socket.SOCK_RAW), (socket.AF_PACKET, socket.SOCK_RAW))},
    "load a module": (system_call, 175, b"", 0, b""),
    "load a module from a file": (system_call, 313, -1, b"", 0),
    "read a file in /tmp": (open, "/tmp/secret"),
    "open the disk": (open, "/dev/vda", "rb"),
    "make a device node": (os.mknod, "/var/lib/cni/cni-lease-reset/disk", 0o60600, os.makedev(254, 0)),
    "set the set-user-ID bit": (os.chmod, "/run/cni-lease-reset/probe", 0o4755),
    "give a file away": (os.chown, "/run/cni-lease-reset/probe", 1234, 1234),
    "become somebody": (os.setuid, 1234),
    "mount": (system_call, 165, b"tmpfs", b"/var/lib/cni", b"tmpfs", 0, None),
    "unmount": (system_call, 166, b"/proc", 2),
    "make a user namespace": (system_call, 272, 0x10000000),
    "reboot": (system_call, 169, 0xFEE1DEAD, 672274793, 0x01234567, None),
    "set the clock": (system_call, 227, 0, (ctypes.c_long * 2)(0, 0)),
    "name the host": (socket.sethostname, "probe"),
    "trace a process": (system_call, 101, 16, 1, None, None),
    "load BPF": (system_call, 321, 0, None, 0),
    "be scheduled in real time": (os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1)),
    "write and run memory": (mmap.mmap, -1, 4096, mmap.MAP_PRIVATE, 7),
}
report = {"must": {name: attempt(*call) for name, call in must.items()}}
report["must_not"] = {name: attempt(*call)[:1] for name, call in must_not.items()}
print(json.dumps(report), flush=True)
"""


def _probe(node: Node) -> dict[str, dict[str, list[object]]]:
    node.write("/opt/probe", PROBE)
    node.write(DROP_IN, "[Service]\nExecStart=\nExecStart=/usr/bin/python3 -I /opt/probe\n")
    node.run(f"systemctl daemon-reload; systemctl restart {UNIT}; rm {DROP_IN}; systemctl daemon-reload")
    lines = node.run("journalctl --sync; journalctl -b -o cat -t python3").splitlines()
    found: dict[str, dict[str, list[object]]] = json.loads(next(line for line in lines if line.startswith("{")))
    return found


def _three_pods(node: Node) -> None:
    assert len(node.pods().started) == 3
    node.run("sync")


def test_15_the_cage(node: Node) -> None:
    node.start("lab.pods=3")
    node.run("mkdir -p /home/somebody && echo x | tee /home/somebody/lease /root/lease /tmp/secret >/dev/null")
    _three_pods(node)

    with node.scenario("the cage: what it must and nothing else"):
        found = _probe(node)
        for name, told in found["must"].items():
            assert told[0] == "done", f"it cannot {name}: {told}"
        assert found["must"]["see shims"][1] == 3
        node.figure(f"{len(found['must'])} things done, {len(found['must_not'])} denied")
        assert [name for name, told in found["must_not"].items() if told[0] == "done"] == []
        node.run(f"systemctl restart {UNIT}")
        assert node.verdict_again().verdict == "same-boot"

    with node.scenario("the cage: /var/lib/cni of mode 0700, another user's"):
        node.run(f"chown -R 1234:5678 {CNI} && chmod 0700 {CNI} && install -d -o 2345 -m 0755 {METRICS}")
        node.write(METRICS_PATIENCE, "[Service]\nTimeoutStartSec=10min\n")
        owners = node.run(f"sync; {OWNERS}")
        node.power_cut()
        verdict = node.verdict()
        assert (verdict.verdict, verdict.found, verdict.cleared) == ("unclean", 3, 3)
        assert node.run(OWNERS) == owners
        node.run(f"systemctl start {METRICS_UNIT}")  # caged, too, and the directory is another user's
        assert 'boot_verdict{verdict="unclean"} 1' in node.run(f"cat {METRICS}/cni-lease-reset.prom")
        assert node.run(OWNERS) == owners
        node.nothing_lost()
        _three_pods(node)

    with node.scenario("the cage: a system call is denied"):
        node.write(DROP_IN, "[Service]\nSystemCallFilter=~rename renameat renameat2\n")
        node.power_cut()
        verdict = node.verdict()
        assert (verdict.verdict, verdict.cleared) == ("unclean", 0)
        assert "Operation not permitted" in verdict.reason
        node.figure(f"the journal: {verdict.message}")
        assert node.show(UNIT, "ExecMainStatus") == "74"
        node.nothing_lost()
        _three_pods(node)

    with node.scenario("the cage: it cannot be built"):
        node.write(DROP_IN, "[Service]\nReadWritePaths=/no/such/place\n")
        before = node.marker()
        node.power_cut()
        node.settled()
        assert node.show(UNIT, "ExecMainStatus") == "226"
        assert node.verdicts() == ()
        assert "/no/such/place: No such file or directory" in node.run(f"journalctl -b --no-pager -u {UNIT}")
        assert node.marker() == before == {}, "the boot before could not do what was due"
        node.nothing_lost()
        _three_pods(node)

    with node.scenario("... mended"):
        node.run(f"rm {DROP_IN}; sync")
        node.power_cut()
        verdict = node.verdict()
        assert (verdict.verdict, verdict.found, verdict.cleared) == ("unknown", 9, 9)
        node.nothing_lost()
        assert (
            node.run(f"ls {STATE}/set-aside")
            .split()[-1]
            .endswith(node.run("cut -c1-8 /proc/sys/kernel/random/boot_id").strip())
        )
        _three_pods(node)
