"""The journal: its own protocol on a real socket, and stderr where nobody listens."""

import socket
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import OTHER, THIS

from cni_lease_reset.core.events import Entry
from cni_lease_reset.edges import journald
from cni_lease_reset.edges.journald import Journal
from cni_lease_reset.edges.node import Node


def decoded(datagram: bytes) -> dict[str, str]:
    """Decode journald's native protocol."""
    fields: dict[str, str] = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        key, equals, value = line.partition(b"=")
        if not equals:
            length = int.from_bytes(rest[:8], "little")
            value, rest = rest[8 : 8 + length], rest[9 + length :]
        fields[key.decode()] = value.decode()
        datagram = rest
    return fields


def test_an_entry_reaches_a_real_socket_with_all_its_fields(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        Journal(Node("/"), path=path).send(Entry("id", 5, "two\nlines", (("CNI_VERDICT", "unclean"),)))
        fields = decoded(server.recv(4096))
    assert fields == {
        "MESSAGE": "two\nlines",
        "MESSAGE_ID": "id",
        "PRIORITY": "5",
        "SYSLOG_IDENTIFIER": "cni-lease-reset",
        "CNI_VERDICT": "unclean",
        "CNI_REASON": "two\nlines",
        "OBJECT_SYSTEMD_UNIT": "cni-lease-reset.service",
    }


@pytest.mark.parametrize(("stream", "prefix"), [("1:2", "<3>"), (None, "cni-lease-reset: ")])
def test_without_journald_the_text_goes_to_stderr(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    stream: str | None,
    prefix: str,
) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    if stream:
        monkeypatch.setenv("JOURNAL_STREAM", stream)
    Journal(Node("/"), path=str(tmp_path / "nobody")).send(Entry("id", 3, "text"))
    assert capsys.readouterr().err == f"{prefix}text\n"


def test_a_long_message_is_one_line_of_systemctl_status_and_whole_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    entry = Entry("id", 3, 200 * "x")
    assert journald.serialise(entry).splitlines()[0].decode() == f"MESSAGE={99 * 'x'}…"
    Journal(Node("/tree")).send(entry)
    assert capsys.readouterr().err == f"cni-lease-reset: {200 * 'x'}\n"


def test_a_full_journal_socket_does_not_block(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        journal = Journal(Node("/"), path=path)
        while "text" not in capsys.readouterr().err:
            journal.send(Entry("id", 3, "text"))


def test_the_protocol_has_one_socket() -> None:
    assert journald.SOCKET == "/run/systemd/journal/socket"
    assert THIS != OTHER


def test_what_nobody_hears_on_stderr_does_not_go_to_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nobody = open("/dev/full", "w")  # noqa: SIM115  it is full when it is closed, too
    monkeypatch.setattr(sys, "stderr", nobody)
    journald.say("one", sys.stderr)
    journald.say("two", sys.stderr)
    with suppress(OSError):
        nobody.close()
    assert capsys.readouterr().out == ""
