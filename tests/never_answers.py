"""A disk that hangs: a file system (FUSE, without a library) that takes every request and answers none.

A program of its own, which a test puts into its machine. Who asks this disk is not let go even by SIGKILL: D state.
"""

import argparse
import ctypes
import errno
import fcntl
import os
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

PROGRAM: Final = Path(__file__).read_text()

# Source: linux/fuse.h; struct fuse_in_header, fuse_out_header and fuse_init_out of protocol 7.23 and later.
_ASKED: Final = struct.Struct("IIQQIII")  # length, opcode, number, node, uid, gid, pid
_ANSWER: Final = struct.Struct("IiQ")  # length, error, number
_LIMITS: Final = struct.pack("IIIIHHIIHHI28x", 7, 31, 0, 0, 12, 12, 4096, 1, 0, 0, 0)
_INIT: Final = 26


class Request(NamedTuple):
    """What the kernel asks in the name of a process."""

    opcode: int
    number: int
    process: int


class Disk:
    """What is mounted on a directory, which is made where it is missing."""

    def __init__(self, directory: str) -> None:
        os.makedirs(directory, exist_ok=True)
        self._requests = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={self._requests},rootmode=40000,user_id=0,group_id=0".encode()
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mount(b"never-answers", os.fsencode(directory), b"fuse", 0, options) != 0:
            sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")
        first = self.next()
        assert first.opcode == _INIT, first
        self.answer(first, limits=_LIMITS)

    def next(self) -> Request:
        """Wait until somebody asks."""
        _, opcode, number, _, _, _, process = _ASKED.unpack_from(os.read(self._requests, 1 << 20))
        return Request(opcode, number, process)

    def answer(self, request: Request, *, error: int = 0, limits: bytes = b"") -> None:
        os.write(self._requests, _ANSWER.pack(_ANSWER.size + len(limits), -error, request.number) + limits)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("directory")
    parser.add_argument("--slow", type=float, metavar="SECONDS", help="fail the first process that asks, after so long")
    parser.add_argument("--lock", metavar="FILE", help="besides, hold host-local's lock of a network")
    options = parser.parse_args()
    if options.lock:
        fcntl.flock(os.open(options.lock, os.O_RDWR | os.O_CREAT, 0o644), fcntl.LOCK_EX)
    disk = Disk(options.directory)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifier:
        notifier.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
    first = 0
    while True:
        request = disk.next()
        print(f"request {request.opcode} of process {request.process}", flush=True)
        if options.slow and first in (0, request.process):
            if not first:
                first = request.process
                time.sleep(options.slow)
            disk.answer(request, error=errno.EIO)


if __name__ == "__main__":
    main()
