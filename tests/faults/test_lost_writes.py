"""A power cut may lose whatever was not fsynced: every such disk, by a model over the recorded system calls, boots.

Two models. *Ordered*, as the journals of ext4 and XFS are: a change of a directory is lost only together with all later
ones, but file contents that were not fsynced may be lost under any name that survived. *Any order*: each change that was
not fsynced may be lost alone, as long as what needs it is lost too; no file system of today is as bad.
"""

import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

import pytest
from conftest import Tree

from cni_lease_reset.core.model import Marker, NoMarker, State

from . import report
from .cases import TRIED, Before, Case, nothing_is_lost, reading, the_marker_is_believable, the_next_boot_mends_it
from .conftest import Figures
from .test_crash_points import undisturbed

PERSISTENT: Final = "/var/"  # /run is gone after a power cut, and /proc and /etc are not written
PROMISED: Final = {"boot": State.RUNNING, "shutdown": State.CLEAN}
MOST: Final = 120  # states a case in the short run, evenly taken from all
_CALL: Final = re.compile(r"([a-z0-9_]+)\((.*)\) += ([0-9]+)(?:<.*>)?$")
# Which one of a family is called is the C library's affair, and Python's.
_LOOKS: Final = re.compile(
    r"openat|close(_range)?|dup[23]?|(new)?[fl]?stat(at|x)?(64)?|f?statfs(64)?|faccessat2?|readlinkat|getdents(64)?"
    r"|p?read(v|64)?|_?l?lseek|fcntl(64)?|flock|ioctl"
)


class Operation(NamedTuple):
    """A change of the disk, or the promise that earlier ones stay."""

    kind: str  # create, write, mkdir, rename, unlink, rmdir, fsync
    path: str
    target: str = ""  # of a rename
    content: bytes = b""  # of a write

    def __str__(self) -> str:
        return f"{self.kind} {self.path} {self.target}".rstrip()

    @property
    def touches(self) -> set[str]:
        """The names that it changes."""
        return {self.path, self.target} - {""}


def operations(log: Iterable[str], root: str) -> Iterator[Operation]:
    """Read what the program did to the persistent files."""
    for line in log:
        match = _CALL.match(line)
        if match is None or root not in line:
            continue
        name, given, _ = match.groups()
        paths = [path.removeprefix(root) for path in re.findall(r"<([^>]*)>", given)]
        names = re.findall(r'"((?:[^"\\]|\\.)*)"', given)
        below = [f"{path}/{name}" for path, name in zip(paths, names, strict=False)]
        if not paths or not paths[0].startswith(PERSISTENT):
            continue
        match name:
            case "mkdirat":
                yield Operation("mkdir", below[0])
            case "openat" if "O_CREAT" in given:
                yield Operation("create", below[0])
            case "write":
                content = names[0].encode().decode("unicode_escape").encode("latin-1")
                yield Operation("write", paths[0], content=content)
            case "renameat":
                yield Operation("rename", below[0], below[1])
            case "unlinkat":
                yield Operation("rmdir" if "AT_REMOVEDIR" in given else "unlink", below[0])
            case "fsync":
                yield Operation("fsync", paths[0])
            case _ if _LOOKS.fullmatch(name):
                pass
            case "fchmod":
                pass  # a lost mode changes nothing that a boot looks at
            case _:
                raise AssertionError(f"what does this do to the disk? {line}")


def needs(later: Operation, earlier: Operation) -> bool:
    """Whether one cannot be on disk without an earlier one: that means the same name, or one above or within it."""
    if earlier.kind in ("fsync", "write"):
        return False
    if later.kind == "rmdir" and any(path.startswith(f"{later.path}/") for path in earlier.touches):
        return True
    above = {str(parent) for path in later.touches for parent in (PurePosixPath(path), *PurePosixPath(path).parents)}
    return bool(earlier.touches & above)


class Done(NamedTuple):
    """What a run did up to some moment."""

    operations: tuple[Operation, ...]
    needed: tuple[frozenset[int], ...]  # for each: the earlier ones that it cannot be on disk without

    @classmethod
    def of(cls, operations: tuple[Operation, ...]) -> "Done":
        """Find out what needs what."""
        needed: list[frozenset[int]] = []
        for index, later in enumerate(operations):
            direct = [at for at, earlier in enumerate(operations[:index]) if needs(later, earlier)]
            needed.append(frozenset(direct).union(*(needed[at] for at in direct)))
        return cls(operations, tuple(needed))

    def until(self, moment: int) -> "Done":
        """Only what was done before a moment."""
        return Done(self.operations[:moment], self.needed[:moment])

    def of_kind(self, *kinds: str) -> frozenset[int]:
        """The numbers of the operations of these kinds."""
        return frozenset(index for index, each in enumerate(self.operations) if each.kind in kinds)

    def promised(self) -> frozenset[int]:
        """The operations that an fsync has made last, and what they need."""
        lasting: set[int] = set()
        for now in self.of_kind("fsync"):
            place = self.operations[now].path
            for index, earlier in enumerate(self.operations[:now]):
                contents = earlier.kind == "write" and earlier.path == place
                entry = earlier.kind != "write" and place in {
                    str(PurePosixPath(path).parent) for path in earlier.touches
                }
                if contents or entry:
                    lasting |= {index, *self.needed[index]}
        return frozenset(lasting) - self.of_kind("fsync")


class Disk(NamedTuple):
    """What may be on the disk after a power cut: the operations that lasted, and what became of lost contents."""

    lasted: frozenset[int]
    cut: frozenset[int]  # the writes that did not, though the file may be there
    remains: str  # of those: "empty", "nul" or "half"
    in_order: bool  # of the ordered model
    ended: bool  # the program had come to its end


def ordered(done: Done, *, ended: bool) -> Iterator[Disk]:
    """Every suffix of the changes lost, with and without the contents that no fsync has made last."""
    sure, writes = done.promised(), done.of_kind("write")
    changes = sorted(frozenset(range(len(done.operations))) - writes - done.of_kind("fsync"))
    for length in range(len(changes) + 1):
        lasted = frozenset(changes[:length])
        if sure - writes <= lasted:
            yield Disk(lasted | writes, frozenset(), "", in_order=True, ended=ended)
            yield from (
                Disk(lasted | (writes & sure), writes - sure, how, in_order=True, ended=ended)
                for how in ("empty", "nul", "half")
            )


def any_order(done: Done, *, ended: bool) -> Iterator[Disk]:
    """Every choice of the changes that were not fsynced, as far as one can be without another."""
    choices = [done.promised()]
    for index in sorted(frozenset(range(len(done.operations))) - choices[0] - done.of_kind("fsync")):
        choices += [chosen | {index} for chosen in choices if done.needed[index] <= chosen]
    writes = done.of_kind("write")
    return (Disk(chosen, writes - chosen, "half", in_order=False, ended=ended) for chosen in choices)


def disks(done: Done) -> list[Disk]:
    """Every disk that a power cut at any moment may leave, each once."""
    found: dict[Disk, None] = {}
    for moment in range(len(done.operations) + 1):
        for model in (ordered, any_order):
            found |= dict.fromkeys(model(done.until(moment), ended=moment == len(done.operations)))
    return list(found)


def write_down(disk: Disk, done: Done, tree: Tree) -> None:
    """Make the disk from a node as it was before."""
    for index, operation in enumerate(done.operations):
        path = tree.root / operation.path[1:]
        lasted = index in disk.lasted
        match operation.kind:
            case "write" if path.exists() and (lasted or index in disk.cut):
                text = operation.content
                remains = {"empty": b"", "nul": b"\0" * len(text), "half": text[: len(text) // 2]}
                path.write_bytes(text if lasted else remains[disk.remains])
            case "create" if lasted:
                path.touch()
            case "mkdir" if lasted:
                path.mkdir()
            case "rename" if lasted:
                path.rename(tree.root / operation.target[1:])
            case "unlink" if lasted:
                path.unlink()
            case "rmdir" if lasted:
                path.rmdir()


@pytest.mark.parametrize("case", TRIED, ids=lambda case: case.name)
def test_no_lost_write_makes_a_crash_look_clean_or_loses_a_lease(
    case: Case,
    place: Path,
    long: bool,
    figures: Figures,
    each: Callable[[Callable[[tuple[int, Disk]], None], Iterable[tuple[int, Disk]]], int],
) -> None:
    root = place / "plain"
    run = undisturbed(case, root)
    done = Done.of(tuple(operations(run.log, str(root))))

    def attempt(numbered: tuple[int, Disk]) -> None:
        number, disk = numbered
        tree = case.tree(place / str(number))
        before = Before.of(tree)
        write_down(disk, done, tree)
        lost = [str(each) for index, each in enumerate(done.operations) if index not in disk.lasted]
        said = f"{case.name}, {'after its end, ' if disk.ended else ''}lost ({disk.remains}): {lost}"
        nothing_is_lost(case, before, tree, old_resets=disk.in_order, said=said)
        the_marker_is_believable(case, before, tree, said=said)
        now = reading(tree)
        if disk.ended and case.verb in PROMISED and run.status == 0:  # which is a promise
            assert isinstance(now, Marker), said
            assert now.state is PROMISED[case.verb], said
        elif disk.ended and case.verb in PROMISED:
            assert isinstance(now, NoMarker), said
        the_next_boot_mends_it(before, tree, said=said)
        shutil.rmtree(tree.root)

    all_of_them = disks(done)
    some = all_of_them if long else all_of_them[:: -(-len(all_of_them) // MOST)]
    assert len(some) >= 10
    figures.add(report.DISKS, each(attempt, enumerate(some)))
