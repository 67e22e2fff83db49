"""Who lives: one answer for ``boot``, ``recover`` and ``status``.

A lease's pod lives if its owner's id stands in a trusted place, or its address is set in some network namespace. Nobody
can make us take a lease; who may make a network namespace can keep one from us.
"""

import errno
import os
import re
import socket
from collections.abc import Collection
from typing import Final

from ..core.errors import NoAnswerError, describe, printable
from ..core.findings import Lease, Living
from . import child, lock, mountinfo, namespaces, traces
from .node import Node
from .sight import Sight, content

CONTAINERD: Final = "/run/k3s/containerd/containerd.sock"  # of RKE2 and K3s
_ANSWERS: Final = (0, errno.EAGAIN, errno.EACCES, errno.EPERM)  # it is there, even if it has no time or not for us
_POD: Final = r"(?s:cni-.*)|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"  # containerd's, and CRI-O's


def whose(node: Node, found: Collection[Lease], *, caged: bool = False, lenient: bool = False) -> Living:
    """Ask in a child which owners and addresses of leases live; no answer in time is a doubt.

    So is any place outside of the machine's own rooms, but not for ``boot``, which is ``caged``. The child may outlive
    this, and with it a lock that it inherited: unlock with ``LOCK_UN``, a close is not enough.
    """
    if not (found or caged):
        return Living()
    if not caged and (doubt := own_room(node)) is not None:
        return Living(doubts=(doubt,))
    owners = {lease.owner for lease in found if lease.owner is not None}
    addresses = {lease.address for lease in found}
    sight = Sight(caged=caged, lenient=lenient)
    try:
        said = child.ask(lambda: tuple(look(node, owners, addresses, sight)), seconds=lock.WHO_LIVES)
    except NoAnswerError as error:
        return Living(doubts=(f"who lives cannot be told: {error}",))
    return Living._make(said)


def look(node: Node, owners: Collection[str], addresses: Collection[str], sight: Sight) -> Living:
    """Say which owners and addresses of leases live."""
    proc = node.path("/proc")
    if (doubt := own_room(node, caged=True)) is not None:
        sight.doubt("hidden", doubt)
    before = traces.gather(sight, node)
    found = namespaces.Addresses(sight, addresses)
    for process in traces.processes(sight, proc):
        found.look(f"{proc}/{process}/net", process)
    mounts = namespaces.mounted(sight, proc)
    if mounts and not sight.caged:
        found.enter(mounts, proc)
    after = traces.gather(sight, node)  # ids again: an ADD may have ended meanwhile, and a DEL begun
    states = tuple(f"{state}/" for state in before.states | after.states)
    theirs = (m.point for m in mounts if re.fullmatch(_POD, os.path.basename(m.point)) or m.point.startswith(states))
    named = [f"the network namespace of a pod is mounted at {printable(point, quoted=True)}" for point in theirs]
    pods = (*before.pods, *after.pods, *named)
    known = before.know(owners) | after.know(owners)
    return Living(frozenset(known), found.found, tuple(dict.fromkeys(pods)), tuple(sight.doubts.values()))


def _hidden(proc: str, error: OSError) -> str:
    """Say that we do not see all, and what to do, by the options that /proc is mounted with. Source: proc(5)."""
    table = mountinfo.parse(os.fsdecode(Sight(caged=True).read(f"{proc}/self/mountinfo")))
    seen = [mount.options for mount in table if mount.point == "/proc"][-1:]  # the last covers others
    options = dict(option.partition("=")[::2] for option in (seen[0] if seen else ()))
    hidden, group = options.get("hidepid"), options.get("gid")
    who = f"its group {group} (in a unit: SupplementaryGroups={group})" if group else "CAP_SYS_PTRACE"
    remedy = "run where the machine's own /proc is mounted"
    if hidden is not None:
        remedy = f"/proc is mounted with hidepid={hidden}: run with {who}, or mount it without"
    return f"the processes of this machine are hidden from us ({describe(error)}): {remedy}"


def own_room(node: Node, *, caged: bool = False) -> str | None:
    """Say why who lives on this machine cannot be told from here: its processes are hidden from us.

    In a container with its own /proc nobody is seen, too; ``caged`` does not ask for that.
    """
    proc = node.path("/proc")
    if not node.is_this_machine and not os.path.isdir(f"{proc}/1"):
        return None  # nobody runs there
    try:  # PID 1 is there always, and its files are everybody's
        name = os.fsdecode(content(f"{proc}/1/comm").strip())
        content(f"{proc}/1/net/fib_trie")
    except OSError as error:
        return _hidden(proc, error)
    if caged:
        return None
    if name != "systemd":
        return f"PID 1 is {printable(name, quoted=True)} and not systemd, as in a container: run on the node itself"
    if not os.path.isdir(node.path("/run/systemd/system")):
        return "the machine's own /run is not there, as in a container: run on the node itself"
    return None


def answers(node: Node, path: str = CONTAINERD) -> bool:
    """Whether somebody listens at a socket, without waiting for him. Raises ``OSError`` where none can be made."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.setblocking(False)
        try:
            return connection.connect_ex(node.path(path)) in _ANSWERS
        except OSError:  # a path that is too long for a socket's
            return False
