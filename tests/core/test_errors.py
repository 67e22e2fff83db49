"""An error is one line, whatever others wrote into it."""

import errno

from cni_lease_reset.core.errors import describe, printable


def test_what_others_wrote_is_never_printed_raw() -> None:
    assert printable("a\x1b[31m\n\udcff") == "a\\x1b[31m\\n\\udcff"
    assert describe(OSError(errno.EIO, "Input/output error", "a\nb")) == "'a\\nb': Input/output error"
    assert describe(OSError("odd")) == "odd"
    assert describe(OSError(errno.EISDIR, "Is a directory", "m.new", None, "m")) == "'m.new': Is a directory"
