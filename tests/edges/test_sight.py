"""edges/sight.py: what is gone is nothing, what cannot be read is a doubt."""

import errno
import os

import pytest

from cni_lease_reset.edges.sight import Sight


@pytest.mark.parametrize(
    ("number", "of_root", "of_a_user"),
    [
        (errno.ENOENT, 0, 0),
        (errno.ESRCH, 0, 0),
        (errno.EACCES, 1, 0),
        (errno.EPERM, 1, 0),
        (errno.EIO, 1, 1),
    ],
)
def test_an_error_is_a_doubt_or_not(number: int, of_root: int, of_a_user: int) -> None:
    for lenient, doubts in ((False, of_root), (True, of_a_user)):
        sight = Sight(caged=False, lenient=lenient)
        sight.failed("/proc/7/environ", OSError(number, os.strerror(number)), advice=" (be root)")
        advice = " (be root)" if number in (errno.EACCES, errno.EPERM) else ""
        assert list(sight.doubts.values()) == [f"'/proc/7/environ': {os.strerror(number)}{advice}"] * doubts


def test_of_a_kind_there_is_one_doubt() -> None:
    sight = Sight(caged=False)
    for process in (7, 8):
        sight.failed(f"/proc/{process}/environ", OSError(errno.EIO, "broken"))
    assert list(sight.doubts.values()) == ["'/proc/7/environ': broken"]
