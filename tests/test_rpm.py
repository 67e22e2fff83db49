"""The package, built as `make rpm` builds it."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cni_lease_reset import __version__

TOP = Path(__file__).parent.parent
SPEC = TOP / "packaging/rpm/cni-lease-reset.spec"


def output(*command: str | Path) -> str:
    return subprocess.run(command, cwd=TOP, text=True, capture_output=True, check=True).stdout


def build(release: str) -> tuple[Path, Path]:
    """Build both packages; a release of the tests' own leaves those of `make rpm` alone."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "RELEASE": release}
    subprocess.run([TOP / "packaging/rpm/build"], env=environment, capture_output=True, check=True)
    package, source = (next((TOP / "dist").glob(f"*-{release}*.{kind}.rpm")) for kind in ("noarch", "src"))
    return package, source


@pytest.fixture(scope="module")
def package() -> Iterator[Path]:
    package, source = build("0.test")
    yield package
    package.unlink()
    source.unlink()


def test_the_scriptlets_hold_no_macro_that_nobody_expanded(package: Path) -> None:
    scripts = output("rpm", "-qp", "--scripts", package)
    assert "preset cni-lease-reset.service" in scripts
    assert "%" not in scripts


def test_the_same_commit_gives_the_same_package(package: Path) -> None:
    source = package.with_name(package.name.replace(".noarch.", ".src."))
    before = [path.read_bytes() for path in (package, source)]
    assert [path.read_bytes() for path in build("0.test")] == before


def test_spec_and_program_are_of_one_version() -> None:
    assert re.findall(r"^Version: +(.+)$", SPEC.read_text(), re.MULTILINE) == [__version__]
