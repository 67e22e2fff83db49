"""What systemd knows: over D-Bus with pystemd, or from systemctl where D-Bus does not answer. The only pystemd here."""

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

from ..core.errors import NoAnswerError, describe
from .lock import OF_SYSTEMD, SYSTEMD

DOWN: Final = ("inactive", "failed")  # any other ActiveState counts as up
_SYSTEMCTL: Final = "/usr/bin/systemctl"
_SYSTEMD: Final = (b"org.freedesktop.systemd1", b"/org/freedesktop/systemd1", b"org.freedesktop.systemd1.Manager")
_UNIT: Final = b"org.freedesktop.systemd1.Unit"
_LEFT: Final = "InactiveExitTimestampMonotonic"  # when it last left "inactive": 0 if never, under this kernel

_Told: TypeAlias = tuple[str, list[tuple[str, bool, bool, bool]]]  # SystemState and units, as they fit through a pipe
WhyNot: TypeAlias = str | None  # why it was not D-Bus that answered; the answer is None where nobody did


class Unit(NamedTuple):
    """A unit, one of the runtime or ``shutdown.target``."""

    state: str  # its ActiveState; a unit that does not exist is ``inactive``
    exists: bool
    has_run: bool  # since this kernel started, as far as systemd remembers
    has_job: bool = False


class Runtime(NamedTuple):
    """The units asked for, in that order."""

    units: tuple[Unit, ...]
    starting: bool  # systemd has not finished its first transaction: this is the boot itself
    stopping: bool = False


class Manager:
    """What we ask systemd, answered for a tree under ``--root``: there none runs."""

    def runtime(self, units: Sequence[str]) -> tuple[Runtime | None, WhyNot]:
        """Tell whether these units are up, and whether they ever were: nothing runs, and nothing ran."""
        return Runtime(tuple(Unit("inactive", exists=True, has_run=False) for _ in units), starting=True), None

    def going_down(self) -> tuple[bool | None, WhyNot]:
        """Tell whether the system shuts down."""
        return None, None


class Systemd(Manager):
    """The systemd of this machine."""

    def runtime(self, units: Sequence[str], *, seconds: float = SYSTEMD) -> tuple[Runtime | None, WhyNot]:
        """Ask D-Bus, and systemctl where that does not answer, for at most so many seconds each.

        D-Bus in a child: a bus that accepts and never answers blocks for 90 s, and libsystemd since 257 heeds no alarm.
        """
        from . import child  # only a boot that asks pays for it

        remark = None
        try:
            state, found = child.ask(lambda: _over_dbus(units), seconds=seconds)
        except NoAnswerError as error:
            remark = f"D-Bus cannot be asked ({error})"
            try:
                state, found = _through_systemctl(units, seconds / 2)
            except NoAnswerError as another:
                return None, f"{remark}; {another}"
            remark += "; asked systemctl instead"
        starting = state in ("initializing", "starting")
        return Runtime(tuple(map(Unit._make, found)), starting, stopping=state == "stopping"), remark

    def going_down(self) -> tuple[bool | None, WhyNot]:
        """Before systemd 246 the state could still say "starting": a job on shutdown.target is the other sign."""
        runtime, remark = self.runtime(["shutdown.target"], seconds=OF_SYSTEMD)
        return None if runtime is None else runtime.stopping or runtime.units[0].has_job, remark


def _over_dbus(units: Sequence[str]) -> _Told:
    """Ask over D-Bus for units, loaded or not, in one call: (Id, …, LoadState, ActiveState, …, path, job id, …).

    By their place, for the Id of an alias is another name. Raises whatever a pystemd does that is not there, or does
    not fit. Source: org.freedesktop.systemd1(5).
    """
    _stand_in_for_the_package()
    from pystemd.dbuslib import DBus, apply_signature  # loading unit objects would parse 65 kB of XML for each

    with DBus() as bus:
        state = bus.get_property(*_SYSTEMD, b"SystemState", b"s").decode()
        names = apply_signature(b"as", [[unit.encode() for unit in units]])
        rows = bus.call_method(*_SYSTEMD, b"ListUnitsByNames", names).body
        left = [bus.get_property(_SYSTEMD[0], row[6], _UNIT, _LEFT.encode(), b"t") for row in rows]
    found = zip(units, rows, left, strict=True)
    return state, [(row[3].decode(), row[2] == b"loaded", when != 0, row[7] != 0) for _, row, when in found]


def _stand_in_for_the_package() -> None:
    """Let parts of pystemd be imported without lxml, for introspection, and what else we need not: 25 ms of its 30."""
    import sys
    from importlib.machinery import PathFinder
    from types import ModuleType

    from . import packages

    packages.reach()
    found = PathFinder.find_spec("pystemd")
    if "pystemd" not in sys.modules and found is not None and found.submodule_search_locations is not None:
        package = ModuleType("pystemd")
        package.__path__ = list(found.submodule_search_locations)
        sys.modules["pystemd"] = package
        for name, part in (("pprint", "pformat"), ("pathlib", "Path")):  # this child needs neither
            sys.modules.setdefault(name, ModuleType(name))
            vars(sys.modules[name]).setdefault(part, type)


def _systemctl(properties: str, *units: str, seconds: float) -> list[dict[str, str]]:
    """Ask for properties of each unit, or systemd itself; an empty one may be left out. Raises ``NoAnswerError``."""
    import subprocess

    # As root it needs no D-Bus, for PID 1 listens on a socket of its own.
    command = [_SYSTEMCTL, "show", f"--property={properties}", "--", *units]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=True)
    except subprocess.TimeoutExpired as error:
        raise NoAnswerError(f"systemctl did not answer within {seconds:g} s") from error
    except (OSError, subprocess.CalledProcessError) as error:
        why = describe(error) if isinstance(error, OSError) else error
        raise NoAnswerError(f"systemctl failed ({why})") from error
    blocks = done.stdout.split("\n\n")  # one of lines for each unit, in the order asked for
    if units and len(blocks) != len(units):
        raise NoAnswerError(f"systemctl answered for {len(blocks)} units of {len(units)}")
    return [{key: value for key, _, value in (line.partition("=") for line in each.splitlines())} for each in blocks]


def _through_systemctl(units: Sequence[str], seconds: float) -> _Told:
    """Ask twice, for at most so many seconds each."""
    state = _systemctl("SystemState", seconds=seconds)[0].get("SystemState", "")
    found, shown = [], [dict[str, str]()] * len(units)
    try:
        shown = _systemctl(f"ActiveState,LoadState,{_LEFT},Job", *units, seconds=seconds)
    except NoAnswerError:
        if state != "stopping":  # where it is, that alone is an answer
            raise
    for each in shown:
        has_run, has_job = each.get(_LEFT, "0") != "0", each.get("Job", "") not in ("", "0")
        found.append((each.get("ActiveState", "unknown"), each.get("LoadState") == "loaded", has_run, has_job))
    return state, found
