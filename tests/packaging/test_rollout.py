"""The rollout: objects that a cluster takes, and the script that the Plan runs on each node, run as the Plan runs it."""

import base64
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, TypeAlias, TypedDict

import jsonschema
import kubernetes_validate
import pytest
import yaml
from conftest import TOP, tool

from cni_lease_reset import __version__

RANCHER: Final = TOP / "packaging/rancher"
HERE: Final = TOP / "tests/packaging"
PLAN: Final = yaml.safe_load((HERE / "plan.schema.yaml").read_text())
KUBERNETES: Final = ("1.28", "1.37")  # the oldest that Rancher still looks after, and the newest known here
ANNOTATIONS: Final = 262_144  # what all annotations of an object may have


class Mount(TypedDict):
    name: str
    path: str


class Spec(TypedDict):
    version: str
    nodeSelector: object
    tolerations: object
    secrets: list[Mount]
    upgrade: dict[str, list[str]]


class Metadata(TypedDict, total=False):
    name: str
    annotations: dict[str, str]


class Object(TypedDict, total=False):
    kind: str
    metadata: Metadata
    data: dict[str, str]
    spec: Spec


def output(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=TOP, env={**os.environ, **environment}, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def deb(folder: Path, version: str) -> Path:
    """A package of a few files that is cut short, as by a power cut, where the node has /var/power-cut-in-SCRIPT."""
    tree = folder / f"deb-{version}"
    for name, text in {
        "DEBIAN/control": f"Package: cni-lease-reset\nVersion: {version}\nArchitecture: all\nDepends: python3-yaml\n"
        "Maintainer: nobody <nobody@localhost>\nDescription: stand-in\n",
        "DEBIAN/conffiles": "/etc/cni-lease-reset/config.yaml\n",
        "usr/bin/cni-lease-reset": f"#!/bin/sh\necho {version}\n",
        "usr/share/doc/cni-lease-reset/README.md": "a document\n",
        "etc/cni-lease-reset/config.yaml": f"# defaults of {version}\n",
    }.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    (tree / "usr/bin/cni-lease-reset").chmod(0o755)
    for script in ("preinst", "postinst"):
        path = tree / "DEBIAN" / script
        path.write_text(
            f"#!/bin/sh\n[ ! -e /var/power-cut-in-{script} ] || {{ rm /var/power-cut-in-{script}; kill -9 $PPID; }}\n"
        )
        path.chmod(0o755)
    package = folder / f"cni-lease-reset_{version}_all.deb"
    output("dpkg-deb", "--build", "--root-owner-group", tree, package)
    return package


def rpm(folder: Path, version: str, name: str = "cni-lease-reset", needs: str = "/bin/sh") -> Path:
    spec = folder / f"{name}-{version}.spec"
    spec.write_text(
        f"Name: {name}\nVersion: {version}\nRelease: 1\nSummary: stand-in\nLicense: none\nBuildArch: noarch\nRequires: {needs}\n"
        f"{'Provides: /bin/sh' if name == 'systemd' else ''}\n"
        f"%description\n%install\nmkdir -p %{{buildroot}}/usr/bin %{{buildroot}}/etc/{name}\n"
        f"echo 'echo {version}' >%{{buildroot}}/usr/bin/{name}\necho '# {version}' >%{{buildroot}}/etc/{name}/config.yaml\n"
        f"%files\n%attr(755,root,root) /usr/bin/{name}\n%config(noreplace) /etc/{name}/config.yaml\n"
    )
    output("rpmbuild", "-bb", "--quiet", "--define", f"_topdir {folder}", "--define", f"_rpmdir {folder}", spec)
    return folder / f"noarch/{name}-{version}-1.noarch.rpm"


def rollout(*packages: Path, version: str = "1.0.0") -> list[Object]:
    said = ("--version", version, "--image", "a/image:tag", "--namespace", "there", "--at-once", "10")
    return list(yaml.safe_load_all(output(RANCHER / "rollout", *said, *packages)))


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("packages")
    found = {f"deb {version}": deb(folder, version) for version in ("0.9.0", "1.0.0", "1.1.0")}
    found |= {f"rpm {version}": rpm(folder, version) for version in ("0.9.0", "1.0.0", "1.1.0")}
    needy = folder / "needy"
    needy.mkdir()
    return found | {"systemd": rpm(folder, "257", "systemd"), "needy": rpm(needy, "1.0.0", needs="nobody-has-this")}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, packages: dict[str, Path]) -> list[Object]:
    """What `make rollout` writes, with the RPM that it builds."""
    folder = tmp_path_factory.mktemp("dist")
    output(RANCHER / "build", DIST=str(folder), DEB=str(packages["deb 1.0.0"]))
    return list(yaml.safe_load_all((folder / f"cni-lease-reset-{__version__}-rollout.yaml").read_text()))


# The objects


def check(each: Object) -> None:
    if each["kind"] == "Plan":
        jsonschema.validate(each, PLAN)
        return
    for version in KUBERNETES:
        kubernetes_validate.validate(each, version, strict=True)


def test_a_cluster_takes_each_object(built: list[Object]) -> None:
    for each in built:
        check(each)
    assert {each["kind"] for each in built} == {"Secret", "Plan"}


@pytest.mark.parametrize(
    ("kind", "right", "wrong"),
    [
        ("Plan", "tolerations", "toleration"),
        ("Plan", "concurrency", "concurency"),
        ("Plan", "nodeSelector", "nodeselector"),
        ("Plan", "matchExpressions", "matchExpresions"),
        ("Plan", '"In"', '"in"'),
        ("Plan", '"path"', '"mountPath"'),
        ("Plan", '"command"', '"comand"'),
        ("Plan", "upgrade.cattle.io/v1", "upgrade.cattle.io/v1beta1"),
        ("Secret", '"data"', '"date"'),
        ("Secret", "namespace", "nameSpace"),
        ("Secret", '"Opaque"', "1"),
    ],
)
def test_a_slip_is_found(built: list[Object], kind: str, right: str, wrong: str) -> None:
    text = json.dumps(next(each for each in built if each["kind"] == kind))
    assert right in text
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        check(json.loads(text.replace(right, wrong)))


def test_kubectl_can_carry_each_object(built: list[Object], tmp_path: Path) -> None:
    huge = tmp_path / "x.deb"
    huge.write_bytes(os.urandom(500_000))
    name = "kubectl.kubernetes.io/last-applied-configuration"
    for each in (*built, *rollout(huge)):
        copy = deepcopy(each)
        copy["metadata"]["annotations"] = {}  # kubectl puts it in
        assert len(name) + len(json.dumps(copy)) + 1 < ANNOTATIONS


def test_the_plan_is_for_every_node_and_disturbs_none(built: list[Object]) -> None:
    *secrets, plan = built
    spec = plan["spec"]
    assert {"cordon", "drain", "prepare", "serviceAccountName", "channel"} & set(spec) == set()
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert spec["nodeSelector"] == {
        "matchExpressions": [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}]
    }
    assert [each["name"] for each in spec["secrets"]] == [each["metadata"]["name"] for each in secrets]
    assert spec["version"] == __version__


def test_the_script_is_clean_and_touches_no_unit() -> None:
    for script in (RANCHER / "install-on-node", RANCHER / "build"):
        output(tool("shellcheck"), script)
    lines = [line.partition("#")[0] for line in (RANCHER / "install-on-node").read_text().splitlines()]
    assert re.findall(r"\b(systemctl|service|reboot|shutdown|kill\w*)\b", "\n".join(lines)) == []


@pytest.mark.parametrize(
    ("image", "packages", "says"),
    [
        ("image", ["a.deb"], "rollout: the image 'image' has no tag, and the Plan would use our version for one"),
        ("host:5000/image", ["a.deb"], "rollout: the image 'host:5000/image' has no tag, and the Plan would use our version for one"),
        ("image:1", ["a.deb", "b.deb"], "rollout: one .deb, one .rpm, or one of each, not a.deb b.deb"),
        ("image:1", ["a.txt"], "rollout: one .deb, one .rpm, or one of each, not a.txt"),
        ("image:1", ["none.deb"], "rollout: cannot read 'none.deb': No such file or directory"),
        ("image:1", ["a.deb"], "rollout: 'a.deb' has 1710001 bytes, and a package may have 1 to 1710000"),
    ],
)  # fmt: skip
def test_what_cannot_be_rolled_out_is_told_in_a_line(
    tmp_path: Path, image: str, packages: list[str], says: str
) -> None:
    (tmp_path / "a.deb").write_bytes(bytes(1_710_001))
    said = ("--version", "1", "--image", image, "--namespace", "there", "--at-once", "1", *packages)
    done = subprocess.run([RANCHER / "rollout", *said], cwd=tmp_path, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", says + "\n")


# The nodes


class Node:
    """A node, and the pods of the Plan that run there."""

    def __init__(self, folder: Path, image: str = "") -> None:
        self._folder, self._image = folder, image
        self._command: list[str] = []

    @property
    def written(self) -> Path:
        """What the node wrote."""
        return self._folder / "all" if self._image else self._folder

    def try_run(self, script: str) -> subprocess.CompletedProcess[str]:
        command: list[str | Path] = [HERE / "pod", self._folder, self._image, script]
        return subprocess.run(command, text=True, capture_output=True, check=False)

    def run(self, script: str) -> str:
        """Run a script on the node itself."""
        done = self.try_run(f"chroot /host sh -euc {shlex.quote(script)}")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def apply(self, objects: Sequence[Object]) -> None:
        """Mount what the Plan says, as kubelet does: each file a link into a folder that is replaced as a whole."""
        *secrets, plan = objects
        place = self._folder / "secrets"
        shutil.rmtree(place, ignore_errors=True)
        paths = {each["name"]: each["path"] for each in plan["spec"]["secrets"]}
        for secret in secrets:
            path = Path(paths[secret["metadata"]["name"]])
            assert str(path.parent) == "/host/run/system-upgrade/secrets"  # where tests/packaging/pod has them
            folder = place / path.name
            (folder / "..1").mkdir(parents=True)
            (folder / "..data").symlink_to("..1")
            for key, value in secret["data"].items():
                (folder / "..1" / key).write_bytes(base64.b64decode(value))
                (folder / key).symlink_to(f"..data/{key}")
        self._command = plan["spec"]["upgrade"]["command"]

    def job(self) -> subprocess.CompletedProcess[str]:
        """Run the Plan's pod."""
        return self.try_run(shlex.join(self._command))

    def installs(self, *packages: Path) -> str:
        """Apply a rollout of these packages, run the pod, and return the last line that it says."""
        self.apply(rollout(*packages))
        done = self.job()
        assert done.returncode == 0, done.stdout + done.stderr
        assert not list(self.written.glob("var/cache/*rollout*"))
        return done.stdout.splitlines()[-1].partition(": ")[2]

    def fails(self, *packages: Path) -> str:
        """Apply a rollout that fails, and return the last line of why."""
        self.apply(rollout(*packages))
        done = self.job()
        assert done.returncode != 0, done.stdout
        return done.stderr.splitlines()[-1].partition(": ")[2]


@pytest.fixture(scope="module")
def image() -> str:
    tool("mmdebstrap")
    made = subprocess.run([TOP / "tests/lab/image"], text=True, stdout=subprocess.PIPE, check=True)
    return made.stdout.strip()


@pytest.fixture
def folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="node", dir="/dev/shm") as folder:  # dpkg and rpm sync
        yield Path(folder)


@pytest.fixture
def debian(folder: Path, image: str) -> Node:
    return Node(folder, image)


@pytest.fixture
def suse(folder: Path, packages: dict[str, Path]) -> Node:
    """A node of rpm: what makes it one is that rpm has installed systemd."""
    node = Node(folder)
    (folder / "var").mkdir()
    shutil.copy(packages["systemd"], folder / "var/systemd.rpm")
    node.run("rpm --install --nodeps --justdb /var/systemd.rpm")
    return node


@pytest.fixture(params=["deb", "rpm"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def node(kind: str, request: pytest.FixtureRequest) -> Node:
    found: Node = request.getfixturevalue({"deb": "debian", "rpm": "suse"}[kind])
    return found


@pytest.fixture
def brings(kind: str, packages: dict[str, Path]) -> Callable[[str], list[Path]]:
    """Both packages of a version, the way a rollout for a mixed fleet has them."""
    return lambda version: [packages[f"{each} {version}"] for each in ("deb", "rpm")]


Brings: TypeAlias = Callable[[str], list[Path]]
DONE: Final = "is installed; the next boot is the first one that it looks after"
RUNS: Final = "sh /usr/bin/cni-lease-reset; cat /etc/cni-lease-reset/config.yaml"


def shown(kind: str, version: str) -> str:
    return f"{version}-1" if kind == "rpm" else version


def test_a_node_gets_the_package_of_its_kind_and_once_is_enough(node: Node, kind: str, brings: Brings) -> None:
    assert node.installs(*brings("1.0.0")) == f"{shown(kind, '1.0.0')} {DONE}"
    assert node.run("sh /usr/bin/cni-lease-reset") == "1.0.0"
    assert node.installs(*brings("1.0.0")) == f"has {shown(kind, '1.0.0')}: nothing to do"


def test_a_newer_version_upgrades_and_keeps_the_settings(node: Node, kind: str, brings: Brings) -> None:
    node.installs(*brings("1.0.0"))
    node.run("echo 'keep_resets: 7' >/etc/cni-lease-reset/config.yaml")
    assert node.installs(*brings("1.0.0")) == f"has {shown(kind, '1.0.0')}: nothing to do"
    assert node.installs(*brings("1.1.0")) == f"{shown(kind, '1.1.0')} {DONE}"
    assert node.run(RUNS) == "1.1.0\nkeep_resets: 7"


def test_a_newer_version_on_the_node_is_left_alone(node: Node, kind: str, brings: Brings) -> None:
    node.installs(*brings("1.0.0"))
    said = f"has {shown(kind, '1.0.0')}, which is newer than {shown(kind, '0.9.0')}: left alone"
    assert node.installs(*brings("0.9.0")) == said
    assert node.run("sh /usr/bin/cni-lease-reset") == "1.0.0"


def test_files_that_a_power_cut_emptied_are_installed_again(node: Node, kind: str, brings: Brings) -> None:
    node.installs(*brings("1.0.0"))
    node.run(": >/usr/bin/cni-lease-reset")
    assert node.installs(*brings("1.0.0")) == f"{shown(kind, '1.0.0')} {DONE}"
    assert node.run("sh /usr/bin/cni-lease-reset") == "1.0.0"


def test_parts_of_two_rollouts_are_never_installed(node: Node, kind: str, brings: Brings) -> None:
    old, new = rollout(*brings("1.0.0")), rollout(*brings("1.1.0"))
    node.apply([old[0], *new[1:]])
    done = node.job()
    assert done.returncode == 1
    assert done.stderr.endswith(f": not all parts of the .{kind} are of one rollout: try again\n")
    assert node.run("[ -e /usr/bin/cni-lease-reset ] || echo nothing") == "nothing"


def test_a_large_package_is_put_together_again(
    node: Node, kind: str, packages: dict[str, Path], tmp_path: Path
) -> None:
    objects = rollout(*(packages[f"{each} 1.0.0"] for each in ("deb", "rpm")))
    script, *_, plan = deepcopy(objects)
    whole = packages[f"{kind} 1.0.0"].read_bytes()
    cut = len(whole) // 3
    parts: list[Object] = []
    for number, part in enumerate((whole[:cut], whole[cut : 2 * cut], whole[2 * cut :]), 1):
        name = f"cni-lease-reset-{kind}-{number}"
        parts.append({"metadata": {"name": name}, "data": {"part": base64.b64encode(part).decode()}})
    plan["spec"]["secrets"] = [
        {"name": name, "path": f"/host/run/system-upgrade/secrets/{name}"}
        for name in ("cni-lease-reset-script", *(part["metadata"]["name"] for part in parts))
    ]
    node.apply([script, *parts, plan])
    done = node.job()
    assert done.returncode == 0, done.stderr
    assert node.run("sh /usr/bin/cni-lease-reset") == "1.0.0"


def test_a_rollout_without_the_package_of_a_node_says_so(node: Node, kind: str, packages: dict[str, Path]) -> None:
    other = {"deb": "rpm", "rpm": "deb"}[kind]
    assert node.fails(packages[f"{other} 1.0.0"]) == f"this rollout brings no .{kind}"


@pytest.mark.parametrize("moment", ["preinst", "postinst"])
@pytest.mark.parametrize("before", ["nothing", "an older version"])
def test_the_next_run_mends_an_installation_that_a_power_cut_ended(
    debian: Node, packages: dict[str, Path], moment: str, before: str
) -> None:
    if before != "nothing":
        debian.installs(packages["deb 0.9.0"])
    debian.run(f"touch /var/power-cut-in-{moment}")
    debian.apply(rollout(packages["deb 1.0.0"]))
    assert debian.job().returncode != 0
    status = debian.run("dpkg-query --show --showformat='${db:Status-Status}' cni-lease-reset")
    assert status in {"half-installed", "half-configured", "unpacked", "not-installed"}, status
    assert debian.installs(packages["deb 1.0.0"]) == f"1.0.0 {DONE}"
    assert debian.run("sh /usr/bin/cni-lease-reset; dpkg --audit") == "1.0.0"


def test_a_package_that_was_removed_comes_back_with_the_settings_that_stayed(
    debian: Node, packages: dict[str, Path]
) -> None:
    debian.installs(packages["deb 1.0.0"])
    debian.run("echo 'keep_resets: 7' >/etc/cni-lease-reset/config.yaml; dpkg --remove cni-lease-reset")
    assert debian.installs(packages["deb 0.9.0"]) == f"0.9.0 {DONE}"
    assert debian.run(RUNS) == "0.9.0\nkeep_resets: 7"


def test_nodes_without_documents_have_nothing_to_repair(debian: Node, packages: dict[str, Path]) -> None:
    debian.run("echo 'path-exclude=/usr/share/doc/*' >/etc/dpkg/dpkg.cfg.d/none")
    debian.installs(packages["deb 1.0.0"])
    assert debian.installs(packages["deb 1.0.0"]) == "has 1.0.0: nothing to do"


def test_a_debian_without_what_it_needs_and_without_a_network_says_so(debian: Node, packages: dict[str, Path]) -> None:
    debian.run("dpkg --purge --force-depends python3-yaml; rm -rf /var/lib/apt/lists /etc/apt/sources.list*")
    said = debian.fails(packages["deb 1.0.0"])
    assert said == "cannot install what it needs: Python 3.11 or newer, and PyYAML (python3-yaml)"
    assert debian.run("dpkg-query --show cni-lease-reset 2>/dev/null || echo nothing") == "nothing"


def test_an_rpm_node_without_what_it_needs_says_so(suse: Node, packages: dict[str, Path]) -> None:
    assert suse.fails(packages["needy"]) == "cannot install what it needs, see above"
    assert suse.run("rpm --query cni-lease-reset || :") == "package cni-lease-reset is not installed"


def test_a_node_of_neither_kind_says_so(folder: Path, packages: dict[str, Path]) -> None:
    (folder / "var").mkdir()
    said = Node(folder).fails(packages["deb 1.0.0"], packages["rpm 1.0.0"])
    assert said == "neither dpkg nor rpm has installed systemd here: no package of ours fits"


# As the real one does: in a system of the next boot, with a /run and a /tmp of its own.
TRANSACTIONAL_UPDATE: Final = """\
#!/bin/sh
[ "$*" = "--non-interactive --continue --drop-if-no-change pkg install --allow-unsigned-rpm $7" ] || exit 2
exec unshare --mount --propagation unchanged sh -euc 'mount -t tmpfs run /run; mount -t tmpfs tmp /tmp; mount -t tmpfs tmp /var/tmp 2>/dev/null || :
    mount -o remount,rw,bind /usr; rpm --upgrade "$1"' sh "$7"
"""


def test_a_read_only_system_gets_it_with_transactional_update(
    suse: Node, folder: Path, packages: dict[str, Path]
) -> None:
    (folder / "image-is-read-only").touch()
    (folder / "usr/sbin").mkdir(exist_ok=True)
    (folder / "usr/sbin/transactional-update").write_text(TRANSACTIONAL_UPDATE)
    (folder / "usr/sbin/transactional-update").chmod(0o755)
    assert suse.installs(packages["rpm 1.0.0"]) == f"1.0.0-1 {DONE}"
    assert suse.installs(packages["rpm 1.0.0"]) == "has 1.0.0-1: nothing to do"
    assert suse.installs(packages["rpm 1.1.0"]) == f"1.1.0-1 {DONE}"
    assert suse.run("sh /usr/bin/cni-lease-reset") == "1.1.0"


def test_a_system_that_nothing_can_write_says_where_it_is_made(
    suse: Node, folder: Path, packages: dict[str, Path]
) -> None:
    (folder / "image-is-read-only").touch()
    said = suse.fails(packages["rpm 1.0.0"])
    assert said == "its system image is read-only: install into the image (Harvester: packaging/harvester)"
