"""What node_exporter gets, checked with promtool."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cni_config import conflist
from conftest import GOLDEN, OTHER, SANDBOX, THIS, HostLocal, Kept, Systemd, Tree, tool
from programs import command

from cni_lease_reset import service
from cni_lease_reset.commands import metrics, status
from cni_lease_reset.edges import record
from cni_lease_reset.edges.systemd import Manager

FILE = "/var/lib/node_exporter/textfile_collector/cni-lease-reset.prom"


@pytest.fixture
def collected(tree: Tree) -> Tree:
    """A node whose node_exporter looks for files."""
    (tree.root / FILE[1:]).parent.mkdir(parents=True)
    return tree


def written(tree: Tree, *options: str) -> str:
    """What the command writes, and nothing else."""
    done = command(tree.node, "status", f"--metrics={FILE}", *options)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return (tree.root / FILE[1:]).read_text()


def steady(text: str) -> str:
    """The metrics without what differs from run to run."""
    return re.sub(r"_seconds \S+$", "_seconds 0", text, flags=re.MULTILINE)


def checked(text: str) -> str:
    done = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=text, text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
    return done.stderr


def crash(tree: Tree, host_local: HostLocal) -> None:
    """A node that lost its power with leases of a hundred pods, some of them torn."""
    tree.mark("running")
    for number in range(100):
        host_local.add(f"old{number}")
    for number in range(2, 5):
        (tree.network / f"10.52.0.{number}").write_text("")
    tree.lease("10.60.0.1", network="macvlan-a")
    conflist(tree, {"type": "host-local", "ranges": [[{"subnet": "10.52.0.0/24"}]]})


def test_the_metrics_of_now_are_these_and_promtool_has_nothing_to_say(
    collected: Tree, host_local: HostLocal, journal: Kept
) -> None:
    crash(collected, host_local)
    service.boot(collected.node, Systemd({"k3s.service": "active"}), journal)
    collected.shim()
    host_local.add(SANDBOX)
    collected.age()
    text = written(collected)
    assert steady(text) == (GOLDEN / "metrics.prom").read_text()
    assert checked(text) == ""


def test_they_tell_what_boot_did(collected: Tree, host_local: HostLocal, journal: Kept) -> None:
    crash(collected, host_local)
    service.boot(collected.node, Systemd(), journal)
    text = written(collected)
    assert checked(text) == ""
    assert 'cni_lease_reset_boot_verdict{verdict="unclean"} 1\n' in text
    assert 'cni_lease_reset_boot_leases_set_aside{network="k8s-pod-network"} 100\n' in text
    assert 'cni_lease_reset_boot_leases_torn{network="k8s-pod-network"} 3\n' in text
    assert "cni_lease_reset_pending_reset 0\n" in text


def test_without_a_file_they_are_printed(tree: Tree) -> None:
    tree.mark("running", THIS)
    done = command(tree.node, "status", "--metrics", "--check")
    assert done.returncode == 3  # the boot was not judged
    assert checked(done.stdout) == ""
    assert "cni_lease_reset_boot_judged 0\n" in done.stdout
    assert "cni_lease_reset_boot_verdict" not in done.stdout
    assert "cni_lease_reset_attention_needed 1\n" in done.stdout


def test_the_file_is_for_everybody_and_whole(collected: Tree) -> None:
    before = os.umask(0o077)
    try:
        written(collected)
    finally:
        os.umask(before)
    path = collected.root / FILE[1:]
    assert path.stat().st_mode & 0o777 == 0o644
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_restart_of_the_service_keeps_the_boots_verdict(collected: Tree) -> None:
    collected.mark("running", OTHER)
    service.boot(collected.node, Systemd(), Kept())
    first = written(collected)
    service.boot(collected.node, Systemd(), Kept())
    assert written(collected) == first


@pytest.mark.parametrize("way", ["no directory", "a link", "a file", "read-only"])
def test_status_says_in_one_line_what_it_could_not_write(tree: Tree, way: str) -> None:
    folder = (tree.root / FILE[1:]).parent
    if way != "no directory":
        folder.parent.mkdir(parents=True)
    if way == "a link":
        folder.symlink_to("/tmp")
    elif way == "a file":
        folder.write_text("")
    elif way == "read-only":
        (folder / Path(FILE).name).mkdir(parents=True)  # root may write anywhere: something else is in its place
    done = command(tree.node, "status", f"--metrics={FILE}")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (74, "", 1)
    named = {"no directory": "/var", "read-only": FILE}.get(way, str(Path(FILE).parent))  # what is in the way
    assert f"'{tree.root}{named}': " in done.stderr


@pytest.mark.parametrize("file", ["x.prom", "/x", "/x.prom/", "", "/x\n\x1b[31m"])
def test_a_file_that_node_exporter_would_not_read_is_one_line(tree: Tree, file: str) -> None:
    done = command(tree.node, "status", f"--metrics={file}")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "must be an absolute path that ends in '.prom'" in done.stderr
    assert "\x1b" not in done.stderr


def test_attention_is_told_though_the_file_is_written(collected: Tree) -> None:
    collected.mark("running", THIS)
    done = command(collected.node, "status", f"--metrics={FILE}", "--check")
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
    assert "cni_lease_reset_attention_needed 1\n" in (collected.root / FILE[1:]).read_text()


def test_no_boot_pays_for_them(tree: Tree) -> None:
    tree.mark("clean")
    tree.lease("10.52.0.2")
    tree.config("keep_resets: 2\n")
    code = "import sys; from cni_lease_reset import cli; cli.main(sys.argv[1:]); print(*sys.modules)"
    call = [sys.executable, "-c", code, "--root", str(tree.root), "boot"]
    loaded = subprocess.run(call, text=True, capture_output=True, check=True).stdout.split()
    assert [name for name in loaded if name.startswith("cni_lease_reset.commands")] == []
    assert "cni_lease_reset.edges.config" in loaded


def test_names_of_networks_are_quoted(tree: Tree) -> None:
    tree.config("networks: ['*']\n")
    tree.lease("10.52.0.2", network='odd" \\ \n')
    text = metrics.text(status.gather(tree.node, Manager()))
    assert checked(text) == ""
    assert r'cni_lease_reset_leases_torn{network="odd\" \\ \\n"} 0' in text


def test_whether_this_boot_was_judged_is_told_by_its_id(tree: Tree) -> None:
    def judged() -> list[str]:
        text = command(tree.node, "status", "--metrics").stdout
        return re.findall(r"^cni_lease_reset_boot_judged (\S+)$", text, re.MULTILINE)

    assert judged() == ["0"]
    service.boot(tree.node, Systemd(), Kept())
    assert judged() == ["1"]
    os.utime(tree.root / "run/cni-lease-reset/boot", (0, 0))  # a node without a clock
    assert judged() == ["1"]
    (tree.root / "proc/sys/kernel/random/boot_id").write_text(f"{OTHER}\n")
    assert judged() == ["0"]
    record.write(tree.node, OTHER)
    assert judged() == ["0"]


def test_a_configuration_that_cannot_be_used_is_told_while_it_is_so(collected: Tree) -> None:
    valid, invalid = "cni_lease_reset_config_valid 1\n", "cni_lease_reset_config_valid 0\n"
    path = collected.root / "etc/cni-lease-reset/config.yaml"
    assert valid in written(collected)
    collected.config("network: [x]\n")
    service.boot(collected.node, Systemd(), Kept())
    assert invalid in written(collected)
    collected.config("networks: [x]\n")
    assert valid in written(collected)
    path.chmod(0o666)
    assert invalid in written(collected)
    path.unlink()
    path.symlink_to("gone")
    assert invalid in written(collected)
    path.unlink()
    path.mkdir()
    assert invalid in written(collected)


def test_the_age_of_this_boot_is_the_kernels_and_left_out_where_it_does_not_tell(tree: Tree) -> None:
    (tree.root / "proc/uptime").write_text("1234.56 99.00\n")
    assert "cni_lease_reset_uptime_seconds 1234.56\n" in metrics.text(status.gather(tree.node, Manager()))
    (tree.root / "proc/uptime").unlink()
    report = status.gather(tree.node, Manager())
    assert "uptime" not in metrics.text(report)
    assert report.unread == (f"'{tree.root}/proc/uptime': No such file or directory",)


def test_each_range_set_has_its_own_numbers(tree: Tree) -> None:
    ranges = [[{"subnet": "10.1.0.0/29"}], [{"subnet": "10.2.0.0/29"}, {"subnet": "10.3.0.0/29"}]]
    conflist(tree, {"type": "host-local", "ranges": ranges})
    for address in ("10.1.0.2", "10.2.0.2", "10.3.0.2", "10.9.0.2"):
        tree.lease(address)
    text = metrics.text(status.gather(tree.node, Manager()))
    assert checked(text) == ""
    labels = 'network="k8s-pod-network",family="ipv4",range_set='
    for line in (
        f'pool_addresses{{{labels}"10.1.0.1-10.1.0.6"}} 5',
        f'pool_leases{{{labels}"10.1.0.1-10.1.0.6"}} 1',
        f'pool_addresses{{{labels}"10.2.0.1-10.2.0.6,10.3.0.1-10.3.0.6"}} 10',
        f'pool_leases{{{labels}"10.2.0.1-10.2.0.6,10.3.0.1-10.3.0.6"}} 2',
    ):
        assert f"\ncni_lease_reset_{line}\n" in text
