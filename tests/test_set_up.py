"""What a checkout needs: what could not be installed is told, and passes only where it cannot be had."""

import os
import platform
import subprocess
import sys
from pathlib import Path

from conftest import COMPLETE

TOP = Path(__file__).parent.parent


def test_a_tool_that_is_not_there_skips_its_test_and_that_is_a_failure_where_it_can_be_had(tmp_path: Path) -> None:
    for name in ("bash", "zsh"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")  # but no fish
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "each_shell", "tests/test_man.py"]
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(command, cwd=TOP, env=environment, text=True, capture_output=True, check=False)
    assert "fish is not to be had here" in done.stdout
    release = platform.freedesktop_os_release()
    complete = f"{release['ID']} {release.get('VERSION_ID')}" in COMPLETE
    assert (done.returncode, "Skipped, and may not be on" in done.stdout) == (int(complete), complete), done.stdout


def test_each_target_says_what_it_does() -> None:
    told = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=TOP, text=True, capture_output=True, check=True
    ).stdout
    makefile = (TOP / "Makefile").read_text()
    phony = next(line for line in makefile.splitlines() if line.startswith(".PHONY: ")).split()[1:]
    assert [line.split()[0] for line in told.splitlines()] == phony
