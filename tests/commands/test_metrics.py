"""What node_exporter gets, checked with promtool."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cni_config import conflist
from conftest import GOLDEN, OTHER, SANDBOX, THIS, TOP, HostLocal, Kept, Systemd, Tree
from programs import PROMTOOL, command

from cni_lease_reset import service
from cni_lease_reset.commands import metrics, status
from cni_lease_reset.core.model import Config
from cni_lease_reset.edges import config
from cni_lease_reset.edges.systemd import NoSystemd

FILE = "/var/lib/node_exporter/textfile_collector/cni-lease-reset.prom"


@pytest.fixture
def measured(tree: Tree) -> Tree:
    tree.config(f"metrics_file: {FILE}\n")
    (tree.root / FILE[1:]).parent.mkdir(parents=True)
    return tree


def written(tree: Tree) -> str:
    return (tree.root / FILE[1:]).read_text()


def steady(text: str) -> str:
    """The metrics without what differs from run to run."""
    return re.sub(r"_seconds \S+$", "_seconds 0", text, flags=re.MULTILINE)


def checked(text: str) -> str:
    done = subprocess.run([PROMTOOL, "check", "metrics"], input=text, text=True, capture_output=True, check=False)
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


def test_a_boot_writes_its_metrics_and_promtool_has_nothing_to_say(
    measured: Tree, host_local: HostLocal, journal: Kept
) -> None:
    crash(measured, host_local)
    service.boot(measured.node, Systemd(), journal)
    text = written(measured)
    assert checked(text) == ""
    assert 'cni_lease_reset_boot_verdict{verdict="unclean"} 1\n' in text
    assert 'cni_lease_reset_boot_leases_set_aside{network="k8s-pod-network"} 100\n' in text
    assert 'cni_lease_reset_boot_leases_torn{network="k8s-pod-network"} 3\n' in text
    assert "cni_lease_reset_pending_reset 0\n" in text
    assert "leaked" not in text  # no pod lives before RKE2 starts: all leases would look so


def test_the_metrics_of_now_are_these(measured: Tree, host_local: HostLocal, journal: Kept) -> None:
    crash(measured, host_local)
    service.boot(measured.node, Systemd({"k3s.service": "active"}), journal)
    measured.shim()
    host_local.add(SANDBOX)
    done = command(measured.node, "status", "--metrics")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert steady(written(measured)) == (GOLDEN / "metrics.prom").read_text()
    assert checked(written(measured)) == ""


def test_without_a_file_they_are_printed(tree: Tree) -> None:
    tree.mark("running", THIS)
    done = command(tree.node, "status", "--metrics", "--check")
    assert done.returncode == 3  # the boot was not judged
    assert checked(done.stdout) == ""
    assert "cni_lease_reset_boot" not in done.stdout
    assert "cni_lease_reset_attention_needed 1\n" in done.stdout


def test_the_file_is_for_everybody_and_whole(measured: Tree) -> None:
    before = os.umask(0o077)
    try:
        service.boot(measured.node, Systemd(), Kept())
    finally:
        os.umask(before)
    path = measured.root / FILE[1:]
    assert path.stat().st_mode & 0o777 == 0o644
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_restart_of_the_service_keeps_the_boots_verdict(measured: Tree) -> None:
    measured.mark("running", OTHER)
    service.boot(measured.node, Systemd(), Kept())
    first = written(measured)
    service.boot(measured.node, Systemd(), Kept())
    assert written(measured) == first


@pytest.mark.parametrize("way", ["no directory", "a link", "a file", "read-only"])
def test_a_file_that_cannot_be_written_is_told_and_the_boot_is_done(tree: Tree, journal: Kept, way: str) -> None:
    tree.config(f"metrics_file: {FILE}\n")
    folder = (tree.root / FILE[1:]).parent
    if way != "no directory":
        folder.parent.mkdir(parents=True)
    if way == "a link":
        folder.symlink_to("/tmp")
    elif way == "a file":
        folder.write_text("")
    elif way == "read-only":
        (folder / Path(FILE).name).mkdir(parents=True)  # root may write anywhere: something else is in its place
    tree.mark("running")
    tree.lease("10.52.0.2")
    assert service.boot(tree.node, Systemd(), journal).result == "cleared"
    told = [entry.message for entry in journal.entries if "Metrics" in entry.message]
    assert len(told) == 1
    assert told[0].startswith("Metrics cannot be written: ")
    assert f"boot_id={THIS}" in tree.marker()


@pytest.mark.parametrize("measuring", [False, True])
def test_only_a_boot_that_measures_pays_for_it(tree: Tree, measuring: bool) -> None:
    tree.mark("clean")
    tree.lease("10.52.0.2")
    if measuring:
        tree.config(f"metrics_file: {FILE}\n")
        (tree.root / FILE[1:]).parent.mkdir(parents=True)
    code = "import sys; from cni_lease_reset import cli; cli.main(sys.argv[1:]); print(*sys.modules)"
    call = [sys.executable, "-c", code, "--root", str(tree.root), "boot"]
    loaded = subprocess.run(call, text=True, capture_output=True, check=True).stdout.split()
    ours = {
        f"cni_lease_reset.commands.{name}" for name in ("metrics", "status", "attention", "pools", "mounts", "rivals")
    }
    assert ours & set(loaded) == (ours if measuring else set())
    assert "cni_lease_reset.commands.display" not in loaded


def test_a_fault_in_measuring_does_not_fail_the_boot(
    measured: Tree, journal: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "gather", lambda *_: 1 / 0)
    assert service.boot(measured.node, Systemd(), journal).result == "nothing-due"
    said = "Metrics cannot be written, please report: ZeroDivisionError: division by zero, ignoring"
    assert journal.entries[-1].message == said


def test_status_says_in_one_line_what_it_could_not_write(tree: Tree) -> None:
    tree.config(f"metrics_file: {FILE}\n")
    done = command(tree.node, "status", "--metrics")
    assert done.returncode == 74
    assert done.stderr.count("\n") == 1
    assert "No such file or directory" in done.stderr


def test_names_of_networks_are_quoted(tree: Tree) -> None:
    tree.config("networks: ['*']\n")
    tree.lease("10.52.0.2", network='odd" \\ \n')
    text = metrics.text(tree.node, status.gather(tree.node, NoSystemd()))
    assert checked(text) == ""
    assert r'cni_lease_reset_leases_torn{network="odd\" \\ \\n"} 0' in text


def test_a_record_that_is_gone_meanwhile_has_no_time(tree: Tree) -> None:
    service.boot(tree.node, Systemd(), Kept())
    report = status.gather(tree.node, NoSystemd())
    (tree.root / "run/cni-lease-reset/boot").unlink()
    assert "last_boot_timestamp" not in metrics.text(tree.node, report)


def test_a_directory_of_ones_own_needs_a_drop_in() -> None:
    def drop_in(text: str) -> str:
        return config.render(config.parse(text.encode())).partition("\n\n")[2]

    assert drop_in(f"metrics_file: {FILE}\n") == ""
    assert drop_in("metrics_file: /srv/metrics/a.prom\n") == (
        "# For this metrics_file: systemctl edit cni-lease-reset.service\n"
        "# [Service]\n# ReadWritePaths=-/srv/metrics\n"
        "# The same for its timer: systemctl edit cni-lease-reset-metrics.service\n"
    )
    assert drop_in("metrics_file: /srv/metrics/a.prom\ndata_dir: /srv/cni/networks\n") == (
        "# For this data_dir and metrics_file: systemctl edit cni-lease-reset.service\n"
        "# [Unit]\n# RequiresMountsFor=/srv/cni\n# [Service]\n# ReadWritePaths=-/srv/cni -/srv/metrics\n"
        "# The same for its timer: systemctl edit cni-lease-reset-metrics.service\n"
    )


def test_the_unit_may_write_where_node_exporter_looks() -> None:
    unit = (TOP / "packaging/systemd/cni-lease-reset.service").read_text()
    allowed = " ".join(re.findall(r"^ReadWritePaths=(.*)$", unit, re.MULTILINE)).split()
    assert set(allowed) == {"-/var/lib/cni", *(f"-{path}" for path in config.METRICS_DIRECTORIES)}
    assert FILE.startswith(config.METRICS_DIRECTORIES)
    assert Config().metrics_file is None
