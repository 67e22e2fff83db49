"""The storm: pods come and go on full networks, addresses leak, and ``recover`` runs again and again beside it all."""

import fcntl
import ipaddress
import json
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from typing import Final

from . import Outcome, Storm
from .pods import HARM, NETWORKS, Network, Pod, owner_of, tell

AT_ONCE: Final = 28  # pods; so many wait on full networks at the beginning
CALM: Final = 6  # passes between two storms of leaks
LAST: Final = 3  # passes after the last pod
MOST: Final = 10  # passes in a row that do nothing
_HOUR: Final = 3600 * 10**9


class Leaks:
    """The leases that nobody has."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Path] = {}  # by inode and time, so that a later lease is another one

    def __len__(self) -> int:
        return len(self._known)

    def remember(self, lease: Path) -> None:
        """Count a lease as leaked from now on."""
        with suppress(FileNotFoundError):  # lost already, which was told
            seen = lease.stat()
            self._known[seen.st_ino, seen.st_mtime_ns] = lease

    def gone(self) -> int:
        """How many of them are no longer there."""
        return sum(not _is_there(lease, identity) for identity, lease in tuple(self._known.items()))

    def plant(self, network: Network, *, young: bool) -> None:
        """Take all free addresses, or, for ``young``, two of three; each third one is torn."""
        network.leases.mkdir(exist_ok=True)
        with (network.leases / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for number, address in enumerate(_addresses(network)):
                lease = network.leases / address
                if not lease.exists() and not (young and number % 3 == 0):
                    lease.write_text("" if number % 3 == 1 else f"{token_hex(32)}\r\neth0")
                    if not young:
                        written = time.time_ns() - _HOUR
                        os.utime(lease, ns=(written, written))
                    self.remember(lease)


def _is_there(lease: Path, identity: tuple[int, int]) -> bool:
    try:
        seen = lease.stat()
    except FileNotFoundError:
        return False
    return (seen.st_ino, seen.st_mtime_ns) == identity


def _addresses(network: Network) -> list[str]:
    """All that host-local hands out: the first one is the gateway's."""
    return [str(address) for subnet in network.subnets for address in list(ipaddress.ip_network(subnet).hosts())[1:]]


class Passes:
    """How often ``recover`` has run: the clock of the storm, for whoever waits waits for it to have done its worst."""

    def __init__(self) -> None:
        self.number = self._in_a_row = 0
        self.refused: list[str] = []  # what was said by those that were busy or refused
        self._ended = threading.Condition()

    def make(self, program: tuple[str, ...]) -> None:
        """Run ``recover`` once. Raises ``RuntimeError`` where it fails, or is busy or refused again and again."""
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ["PYTHONPATH"]}
        done = subprocess.run(
            (sys.executable, "-B", *program, "recover", "--yes"),
            env=environment,
            text=True,
            capture_output=True,
            check=False,
        )
        refused = done.returncode == os.EX_TEMPFAIL
        self._in_a_row = self._in_a_row + 1 if refused else 0
        if done.returncode not in (os.EX_OK, os.EX_TEMPFAIL) or self._in_a_row == MOST:
            raise RuntimeError(f"recover: status {done.returncode}: {done.stdout}{done.stderr}")
        with self._ended:
            self.number += 1
            if refused:
                self.refused.append(done.stderr)
            self._ended.notify_all()

    def wait_for(self, more: int) -> None:
        """Wait until so many have ended."""
        with self._ended:
            until = self.number + more
            self._ended.wait_for(lambda: self.number >= until)


class Weather:
    """All that goes on at once."""

    def __init__(self, storm: Storm) -> None:
        self.storm = storm
        self.passes, self.leaks = Passes(), Leaks()
        self.ended = self.waited = 0
        self._pods: dict[str, Pod] = {}  # by their ids, those that live
        self._counting = threading.Lock()

    def blow(self) -> Outcome:
        """Let all pods live beside one ``recover`` after the other; the first harm ends it."""
        began = time.monotonic()
        self._plant()
        numbers = iter(range(self.storm.pods))
        pool = ThreadPoolExecutor(AT_ONCE)
        lives = [pool.submit(self._live_one_after_another, numbers) for _ in range(AT_ONCE)]
        while not HARM.exists() and not _all_done(lives):
            self._pass()
            if self.passes.number % CALM == 0 and not self.storm.young:
                self._plant()
        for _ in range(LAST):
            if not HARM.exists():
                self._pass()
        return self._outcome(time.monotonic() - began)

    def _pass(self) -> None:
        self.passes.make(_program(self.storm.blind))
        self._watch()

    def _plant(self) -> None:
        for network in NETWORKS:
            self.leaks.plant(network, young=self.storm.young)

    def _live_one_after_another(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            self._live(number)

    def _live(self, number: int) -> None:
        """Live the life of a pod, from its namespace to its DEL, or to a death that nobody tells the plugins of."""
        pod = Pod(number)
        self._pods[pod.id] = pod
        pod.create()
        waited = 0
        while not pod.add(young=self.storm.young):
            waited = 1
            self.passes.wait_for(1)
        self.passes.wait_for(number % 3)
        pod.check()
        pod.begin_to_end()
        if number % 11 == 9:
            for address in pod.addresses:
                self.leaks.remember(pod.network.leases / address)
        else:
            pod.delete()
        pod.vanish()
        del self._pods[pod.id]
        with self._counting:
            self.ended += 1
            self.waited += waited

    def _watch(self) -> None:
        """Look after the leases of all that live now; each looks after its own, too, but only when it ends."""
        for network in NETWORKS:
            for entry in network.living.iterdir():
                pod, owner = _pod(entry), owner_of(network.leases / entry.name)
                if pod and owner != pod == _pod(entry):  # else it is being told of just now, or has begun to end
                    tell(f"{self._pods.get(pod, pod)} has lost {entry.name}, which {owner[:12] or 'nobody'} has now")

    def _outcome(self, seconds: float) -> Outcome:
        harm = HARM.read_text() if HARM.exists() else ""
        leaked, gone = len(self.leaks), self.leaks.gone()
        return Outcome(harm, self.ended, self.waited, self.passes.number, self.passes.refused, leaked, gone, seconds)


def _all_done(lives: list[Future[None]]) -> bool:
    """Whether they are. Raises what went wrong in one of them."""
    for life in lives:
        if life.done():
            life.result()
    return all(life.done() for life in lives)


def _program(blind: str) -> tuple[str, ...]:
    return ("-m", "faults.storm.blind", blind) if blind else ("-m", "cni_lease_reset")


def _pod(entry: Path) -> str:
    """Return the id of the pod that has an address; nobody's, where none has."""
    try:
        return entry.read_text().strip()
    except FileNotFoundError:
        return ""


def main(storm: str) -> None:
    for network in NETWORKS:
        network.living.mkdir(parents=True)
    try:
        print(json.dumps(Weather(Storm(*json.loads(storm))).blow()), flush=True)
    except Exception:  # noqa: BLE001  whatever it is, the test shows it
        traceback.print_exc()
        os._exit(1)
    os._exit(0)  # not waiting for the pods: where harm was done, they wait for passes that will not come


if __name__ == "__main__":
    main(sys.argv[1])
