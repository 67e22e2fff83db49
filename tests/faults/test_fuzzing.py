"""Whatever bytes others wrote: the parsers end, in bounded memory, with a value or with their one kind of error.

The corpus is kept in tests/faults/corpus: true files, and those that broke something. A new one is a `git add`.
"""

import resource
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final, NamedTuple, NoReturn

import pytest
from conftest import Tree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cni_lease_reset.commands import history, pools, rivals
from cni_lease_reset.commands.settings import as_text as settings_text
from cni_lease_reset.core.errors import ConfigError
from cni_lease_reset.core.findings import Lease, Network
from cni_lease_reset.core.model import Config, DamagedMarker, Marker, State
from cni_lease_reset.edges import config, leases, marker, mountinfo, record

from . import report
from .conftest import LONG, Figures

CORPUS: Final = Path(__file__).parent / "corpus"
EXAMPLES: Final = 10_000 if LONG else 120
MEMORY: Final = 64 << 20  # bytes, for a file of the greatest size that is read
SECONDS: Final = 120  # a parser that takes so long hangs


class Parser(NamedTuple):
    """What reads a kind of file."""

    kind: str
    parse: Callable[[Tree, bytes], object]
    limit: int  # the greatest size that is read


def _config(_tree: Tree, content: bytes) -> object:
    try:
        return settings_text(config.parse(content))
    except ConfigError as error:
        assert "\n" not in str(error), "one line"
        assert str(error).isprintable(), "nothing raw"
        return error


def _marker(_tree: Tree, content: bytes) -> object:
    reading = marker.parse(content)
    if isinstance(reading, DamagedMarker):
        assert reading.why.isprintable(), "nothing raw"
    elif reading.state is State.CLEAN:
        lines = [line for line in content.split(b"\n") if not line.startswith(b"#")]
        assert b"state=clean" in lines, "clean only where it says so"
        assert isinstance(reading, Marker)
    return reading


def _lease(_tree: Tree, content: bytes) -> object:
    lease = leases.parse("10.52.0.2", content, 0.0)
    assert lease.torn == (len(content) <= 4096 and not content.strip(b"\0")), "only an empty one is torn"
    return lease


def _cni(tree: Tree, content: bytes) -> object:
    path = tree.root / "etc/cni/net.d/10-fuzz.conflist"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    found = pools.read(tree.node, Config())
    assert all(each.isprintable() for each in found.unread), "nothing raw"
    leased = tuple(Lease(address, None, torn=False) for address in ("10.52.0.2", "fd00:52::2"))
    return found.of(Network("k8s-pod-network", found=leased))


def _flannel(tree: Tree, content: bytes) -> object:
    path = tree.root / "run/flannel/subnet.env"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return pools.read(tree.node, Config())


def _tmpfiles(tree: Tree, content: bytes) -> object:
    path = tree.root / "etc/tmpfiles.d/fuzz.conf"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    found = rivals.find(tree.node, ["/var/lib/cni/networks/k8s-pod-network"])
    assert all(each.isprintable() for each in found), "nothing raw"
    return found


PARSERS: Final = (
    Parser("config", _config, 64 << 10),
    Parser("marker", _marker, 4097),
    Parser("lease", _lease, 4097),
    Parser("cni", _cni, 1 << 20),
    Parser("flannel", _flannel, 1 << 20),
    Parser("tmpfiles", _tmpfiles, 1 << 20),
    Parser("record", lambda _tree, content: record.parse(content), 1 << 20),
    Parser("mountinfo", lambda _tree, content: mountinfo.parse(content.decode(errors="replace")), 1 << 20),
    Parser("journal", lambda _tree, content: history.parse(content), 1 << 20),
)


def corpus(kind: str) -> list[bytes]:
    """The files kept for a parser."""
    return [path.read_bytes() for path in sorted((CORPUS / kind).iterdir())]


def too_long(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise AssertionError("it hangs")


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A kept file with some pieces cut, doubled, replaced, or taken from another."""
    content = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(content)))
        end = draw(st.integers(start, min(len(content), start + 40)))
        other = draw(st.sampled_from(seeds))
        at = draw(st.integers(0, len(other)))
        piece = draw(st.sampled_from([b"", content[start:end] * 2, other[at : at + 40]]) | st.binary(max_size=6))
        content = content[:start] + piece + content[end:]
    return content


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.kind)
def test_no_file_makes_it_fail(parser: Parser, place: Path, figures: Figures) -> None:
    tree, seeds = Tree(place), corpus(parser.kind)
    tried = 0

    @settings(
        max_examples=EXAMPLES,
        derandomize=not LONG,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(mutated(seeds) | st.binary(max_size=300))
    def attempt(content: bytes) -> None:
        nonlocal tried
        tried += 1
        parser.parse(tree, content)

    before = signal.signal(signal.SIGALRM, too_long)
    try:
        signal.alarm(SECONDS * 20)
        attempt()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    figures.add(report.INPUTS, tried)


WORST: Final[dict[str, Callable[[int], bytes]]] = {
    "brackets": lambda size: b"[" * size,
    "closed brackets": lambda size: b"[" * (size // 2) + b"]" * (size // 2),
    "braces": lambda size: b'{"a":' * (size // 5),
    "one string": lambda size: b'"' + b"x" * (size - 2) + b'"',
    "a list": lambda size: b"[" + b"0," * (size // 2 - 2) + b"0]",
    "lines": lambda size: b"a=b\n" * (size // 4),
    "short lines": lambda size: b"\n" * size,
    "zeros": lambda size: b"\0" * size,
    "digits": lambda size: b"9" * size,
    "not UTF-8": lambda size: b"\xff" * size,
    "anchors": lambda size: b"networks: [" + b"&a x, *a, " * (size // 11) + b"]",
    "questions": lambda size: b"? " * (size // 2),
    "dashes": lambda size: b"- " * (size // 2),
    "quotes": lambda size: b"'" * size,
    "backslashes": lambda size: b"\\" * size,
    "comments": lambda size: b"# x\n" * (size // 4),
    "fields": lambda size: b"R! /var/lib/cni/networks/k8s* - " * (size // 32),
}


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.kind)
@pytest.mark.parametrize("worst", WORST.values(), ids=WORST.keys())
def test_the_greatest_file_takes_bounded_memory_and_ends(
    parser: Parser, worst: Callable[[int], bytes], place: Path, figures: Figures
) -> None:
    tree = Tree(place)
    content = worst(parser.limit if LONG else min(parser.limit, 8 << 10))
    before = signal.signal(signal.SIGALRM, too_long)
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        signal.alarm(SECONDS)
        parser.parse(tree, content)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - highest) << 10
    assert grown < MEMORY, f"{grown >> 20} MiB"
    figures.add(report.INPUTS)
