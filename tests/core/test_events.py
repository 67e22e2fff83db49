"""Events and the message catalog agree."""

import re

from conftest import TOP

from cni_lease_reset.core.findings import MessageId

CATALOG = TOP / "packaging/systemd/cni-lease-reset.catalog"


def test_every_message_has_a_catalog_entry_and_every_entry_a_message() -> None:
    text = CATALOG.read_text()
    assert re.findall(r"^-- ([0-9a-f]{32})$", text, re.MULTILINE) == list(MessageId)
    assert len(set(MessageId)) == len(MessageId)
    assert text.count("\nSubject: ") == text.count("\nDefined-By: cni-lease-reset\n") == len(MessageId)
    assert all(len(line) <= 76 for line in text.splitlines())
