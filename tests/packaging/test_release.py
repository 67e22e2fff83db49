"""``make release``: only from a clean tree whose versions agree, and then everything with its checksum."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import TOP

from cni_lease_reset import __version__


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clone of the last commit, with what is changed since committed there."""
    clone = tmp_path / "clone"
    git("clone", "--quiet", str(TOP), str(clone))
    names = subprocess.run(["git", "ls-files", "-z"], cwd=TOP, text=True, capture_output=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        (clone / name).unlink(missing_ok=True)
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(TOP / name, clone / name, follow_symlinks=False)
    (clone / ".git/info/exclude").write_text(".venv\n")
    (clone / ".venv").symlink_to(TOP / ".venv")
    commit(clone)
    (TOP / ".venv/.ready").touch()  # or make would install the clone into the environment of this checkout
    return clone


def git(*words: str, cwd: Path = TOP) -> None:
    subprocess.run(["git", "-c", "user.name=-", "-c", "user.email=-", *words], cwd=cwd, check=True)


def commit(clone: Path) -> None:
    git("add", "--all", cwd=clone)
    git("commit", "--quiet", "--allow-empty", "--message=all", cwd=clone)


def release(clone: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([clone / "tools/release"], cwd=clone, text=True, capture_output=True, check=False)


def refused(clone: Path) -> str:
    done = release(clone)
    assert (done.returncode, done.stdout) == (1, "")
    assert not (clone / "dist").exists()
    return done.stderr


def test_it_builds_all_and_their_checksums(checkout: Path) -> None:
    done = release(checkout)
    assert done.returncode == 0, done.stderr
    dist = checkout / "dist"
    names = {path.name for path in dist.iterdir()}
    assert {f"cni-lease-reset_{__version__}_all.deb", f"cni-lease-reset-{__version__}-rollout.yaml"} <= names
    assert {f"cni-lease-reset-{__version__}-1.noarch.rpm", f"cni-lease-reset-{__version__}-1.src.rpm"} <= names
    subprocess.run(["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"], cwd=dist, check=True)
    assert len((dist / "SHA256SUMS").read_text().splitlines()) == len(names) - 1


@pytest.mark.parametrize("name", ["README.md", "new"])
def test_a_tree_with_changes_is_refused(checkout: Path, name: str) -> None:
    (checkout / name).write_text("changed\n")
    assert refused(checkout) == "release: the tree has changes: commit them, or put them away\n"


def test_a_changelog_of_another_version_is_refused(checkout: Path) -> None:
    path = checkout / "CHANGELOG.md"
    path.write_text(path.read_text().replace(f"## {__version__}", "## 9.9.9"))
    commit(checkout)
    assert refused(checkout) == f"release: CHANGELOG.md says 9.9.9, and cni_lease_reset says {__version__}\n"


def test_a_spec_of_another_version_is_refused(checkout: Path) -> None:
    path = checkout / "packaging/rpm/cni-lease-reset.spec"
    path.write_text(re.sub("^Version: .*", "Version: 9.9.9", path.read_text(), flags=re.MULTILINE))
    commit(checkout)
    assert refused(checkout) == f"release: the RPM's spec says 9.9.9, and cni_lease_reset says {__version__}\n"


def test_a_tag_of_another_version_is_refused(checkout: Path) -> None:
    git("tag", "v9.9.9", cwd=checkout)
    assert refused(checkout) == f"release: the tag of this commit says 9.9.9, and cni_lease_reset says {__version__}\n"
