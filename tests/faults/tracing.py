"""The real program under strace: its system calls recorded, the program killed at one of them, or one made to fail."""

import os
import re
import subprocess
import sys
from typing import Final, NamedTuple

from conftest import TOP, Tree

_CALL: Final = re.compile(r"([a-z0-9_]+)\((.*)")
_CHANGING: Final = re.compile(
    r"(mkdir|rename|unlink|rmdir|link|symlink|mknod|fsync|fdatasync|fchmod|fchown|chmod|chown|utime|truncate|ftruncate"
    r"|write|pwrite|writev|fallocate|setxattr|fsetxattr|sync|syncfs)"
)


class Call(NamedTuple):
    """A system call that the program makes on the tree."""

    name: str
    number: int  # the how many-th of its name since the program began: strace's `when=`
    place: str  # the paths it means, below the tree; times of day replaced
    changes: bool  # meant to change the file system, as opposed to what only looks
    done: bool  # it succeeded

    def __str__(self) -> str:
        return f"{self.name}#{self.number} {self.place}"


class Run(NamedTuple):
    """What came of running the program."""

    status: int  # as `subprocess` tells it: -9 where it was killed
    stdout: str
    stderr: str
    calls: tuple[Call, ...]  # those on the tree, in order
    hit: tuple[Call, ...]  # those that strace tampered with
    log: tuple[str, ...]  # strace's own lines


def plain(tree: Tree, *arguments: str) -> Run:
    """Run it to its end and record every call."""
    return _run(tree, arguments, "-e", "trace=all")


def killed(tree: Tree, call: Call, *arguments: str) -> Run:
    """Kill it as it enters a call; the call itself is not made any more."""
    what = f"inject={call.name}:signal=SIGKILL:when={call.number}"
    return _run(tree, arguments, "-e", f"trace={call.name}", "-e", what)


def failing(tree: Tree, call: Call, error: str, *arguments: str, on: bool = False, last: Call | None = None) -> Run:
    """Let one call fail, or that one and each later one of its name: all of them (``on``), or those up to a last one."""
    what = f"inject={call.name}:error={error}:when={call.number}{'+' if on else f'..{last.number}' if last else ''}"
    return _run(tree, arguments, "-f", "--seccomp-bpf", "-e", f"trace={call.name}", "-e", what)


def _run(tree: Tree, arguments: tuple[str, ...], *options: str) -> Run:
    log = tree.root.with_name(f"{tree.root.name}.strace")
    # Nothing of the caller's surroundings, coverage's hooks least of all: each run makes the same calls. -B: no caches.
    program = (sys.executable, "-B", "-m", "cni_lease_reset", "--root", str(tree.root), *arguments)
    # Nor is a call cut short, and made again, by the end of a child: under strace even an ignored SIGCHLD does that.
    done = subprocess.run(
        ("env", "--block-signal=CHLD", "strace", "-qq", "-y", "-s", "4000", "-o", str(log), *options, "--", *program),
        cwd=TOP,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"},
        text=True,
        capture_output=True,
        check=False,
    )
    lines = log.read_text(errors="backslashreplace").splitlines()
    log.unlink()
    return Run(done.returncode, done.stdout, done.stderr, *_calls(lines, str(tree.root)), tuple(lines))


def _calls(lines: list[str], root: str) -> tuple[tuple[Call, ...], tuple[Call, ...]]:
    calls: list[Call] = []
    hit: list[Call] = []
    numbers: dict[str, int] = {}
    for line in lines:
        match = _CALL.match(re.sub(r"^\d+ +", "", line))
        if match is None:
            continue
        name, rest = match.groups()
        numbers[name] = numbers.get(name, 0) + 1
        call = Call(name, numbers[name], _place(name, rest, root), _changes(name, rest), ") = -1 " not in rest)
        if root in rest and name != "execve":
            calls.append(call)
        if "(INJECTED)" in rest or rest.endswith("= ?"):
            hit.append(call)
    return tuple(calls), tuple(hit)


def _changes(name: str, rest: str) -> bool:
    return _CHANGING.match(name) is not None or "O_CREAT" in rest


def _place(name: str, rest: str, root: str) -> str:
    """The paths of the descriptors and the names given with them."""
    given = re.findall(r"<(/[^>]*)>", rest.partition(") = ")[0])
    if not name.startswith(("write", "read")):
        given += re.findall(r'"([^"]*)"', rest)
    text = " ".join(given).replace(root, "")
    return re.sub(r"\d{8}T\d{6}Z", "TIME", text)
