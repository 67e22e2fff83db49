"""What systemd knows: over D-Bus with pystemd, or from systemctl where D-Bus does not answer. The only pystemd here."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from pystemd.dbuslib import DBus

DOWN: Final = ("inactive", "failed")  # any other ActiveState counts as up
SECONDS: Final = 3.0  # for D-Bus, and again for systemctl
_SYSTEMCTL: Final = "/usr/bin/systemctl"
_SYSTEMD: Final = (b"org.freedesktop.systemd1", b"/org/freedesktop/systemd1", b"org.freedesktop.systemd1.Manager")
_UNIT: Final = b"org.freedesktop.systemd1.Unit"
_LEFT: Final = b"InactiveExitTimestampMonotonic"  # when it last left "inactive": 0 if never, under this kernel
_STARTING: Final = ("initializing", "starting")
_SHUTDOWN: Final = "shutdown.target"

T = TypeVar("T")
_Plain: TypeAlias = tuple[list[tuple[str, bool, bool]], bool]  # a Runtime that fits through a pipe


class Answer(NamedTuple, Generic[T]):
    """An answer, and why it was not D-Bus that gave it; the value is ``None`` where nobody answered."""

    value: T | None
    remark: str | None = None


class Unit(NamedTuple):
    """A unit of the runtime."""

    state: str  # its ActiveState; a unit that does not exist is ``inactive``
    exists: bool
    has_run: bool  # since this kernel started, as far as systemd remembers


class Runtime(NamedTuple):
    """The units asked for, in that order."""

    units: tuple[Unit, ...]
    starting: bool  # systemd has not finished its first transaction: this is the boot itself

    @property
    def is_known(self) -> bool:
        """Whether one of them is on this node at all."""
        return any(unit.exists for unit in self.units)


class Manager(Protocol):
    """The two questions that we have for systemd."""

    def runtime(self, units: Sequence[str]) -> Answer[Runtime]:
        """Tell whether these units are up, and whether they ever were."""
        ...

    def going_down(self) -> Answer[bool]:
        """Tell whether the system shuts down."""
        ...


class Inspector(Protocol):
    """What ``status`` asks of it."""

    def ordered_before(self, unit: str) -> Answer[tuple[str, ...]]:
        """Tell which units a unit is ordered before, whether they exist or not."""
        ...


class NoSystemd:
    """A tree under ``--root``: no systemd runs there."""

    def runtime(self, units: Sequence[str]) -> Answer[Runtime]:
        """Nothing runs, and nothing ran."""
        return Answer(Runtime(tuple(Unit("inactive", exists=True, has_run=False) for _ in units), starting=True))

    def going_down(self) -> Answer[bool]:
        """Nobody can tell."""
        return Answer(None)

    def ordered_before(self, unit: str) -> Answer[tuple[str, ...]]:  # noqa: ARG002  the Protocol's
        """Nobody can tell."""
        return Answer(None)


class Systemd:
    """The systemd of this machine."""

    def runtime(self, units: Sequence[str]) -> Answer[Runtime]:
        """Ask for all units in one call; loading unit objects would parse 65 kB of XML for each."""
        answer = _ask(lambda: _bus_runtime(units), lambda: _systemctl_runtime(units))
        if answer.value is None:
            return Answer(None, answer.remark)
        found, starting = answer.value
        return Answer(Runtime(tuple(Unit(*each) for each in found), starting), answer.remark)

    def going_down(self) -> Answer[bool]:
        """Before systemd 246 the state could still say "starting": a job on shutdown.target is the other sign."""
        return _ask(_bus_going_down, _systemctl_going_down)

    def ordered_before(self, unit: str) -> Answer[tuple[str, ...]]:
        """Ask for one property; systemd loads the unit if need be."""
        return _ask(lambda: _bus_before(unit), lambda: _systemctl_before(unit))


class _NoAnswerError(Exception):
    """Nobody is there, or takes too long."""


def _ask(bus: Callable[[], T], systemctl: Callable[[], T]) -> Answer[T]:
    """Ask D-Bus, and systemctl where that does not answer, for at most ``SECONDS`` each.

    D-Bus in a child: a bus that accepts and never answers blocks for 90 s, and libsystemd since 257 heeds no alarm.
    """
    import marshal

    from . import child  # only a boot that asks pays for it

    try:
        value, silent = marshal.loads(child.ask(lambda: _told(bus), seconds=SECONDS))
    except child.LateError:
        value, silent = None, f"D-Bus did not answer within {SECONDS:.0f} s"
    except child.NoAnswerError as error:
        value, silent = None, f"D-Bus cannot be asked ({error})"
    if value is not None:
        return Answer(value)
    try:
        return Answer(systemctl(), f"{silent}; asked systemctl instead")
    except _NoAnswerError as error:
        return Answer(None, f"{silent}; {error}")


def _told(question: Callable[[], T]) -> bytes:
    """Answer a question, or say why not, so that it fits through a pipe."""
    import marshal

    try:
        return marshal.dumps((question(), ""))  # type: ignore[arg-type]  # all that we ask has plain answers
    except _NoAnswerError as error:
        why = str(error)
    except Exception as error:  # noqa: BLE001  whatever a pystemd raises that does not fit: it is no answer
        why = f"pystemd fails ({type(error).__name__}: {error})"
    return marshal.dumps((None, why))


@contextmanager
def _bus() -> "Iterator[DBus]":
    """Open the system bus."""
    _stand_in_for_the_package()
    try:
        from pystemd.dbusexc import DBusBaseError
        from pystemd.dbuslib import DBus
    except ImportError as error:
        raise _NoAnswerError(f"pystemd cannot be imported ({error})") from error
    try:
        with DBus() as bus:
            yield bus
    except DBusBaseError as error:
        raise _NoAnswerError(f"D-Bus cannot be reached ({error})") from error


def _stand_in_for_the_package() -> None:
    """Let parts of pystemd be imported without its ``__init__``, half of whose 30 ms are lxml, for introspection."""
    import sys
    from importlib.machinery import PathFinder
    from types import ModuleType

    found = PathFinder.find_spec("pystemd")
    if "pystemd" not in sys.modules and found is not None and found.submodule_search_locations is not None:
        package = ModuleType("pystemd")
        package.__path__ = list(found.submodule_search_locations)
        sys.modules["pystemd"] = package


def _bus_units(bus: "DBus", units: Sequence[str]) -> list[tuple[bytes, ...]]:
    """Ask for units, loaded or not: (Id, …, LoadState, ActiveState, …, path, job id, …), in the order asked for.

    Source: org.freedesktop.systemd1(5). By their place, for the Id of an alias is another name.
    """
    from pystemd.dbuslib import apply_signature

    names = apply_signature(b"as", [[unit.encode() for unit in units]])
    reply: list[tuple[bytes, ...]] = bus.call_method(*_SYSTEMD, b"ListUnitsByNames", names).body
    return reply


def _bus_runtime(units: Sequence[str]) -> _Plain:
    with _bus() as bus:
        found = [
            (row[3].decode(), row[2] == b"loaded", bus.get_property(_SYSTEMD[0], row[6], _UNIT, _LEFT, b"t") != 0)
            for row in _bus_units(bus, units)
        ]
        return found, bus.get_property(*_SYSTEMD, b"SystemState", b"s").decode() in _STARTING


def _bus_going_down() -> bool:
    with _bus() as bus:
        if bus.get_property(*_SYSTEMD, b"SystemState", b"s") == b"stopping":
            return True
        return any(row[7] for row in _bus_units(bus, [_SHUTDOWN]))


def _systemctl(*arguments: str) -> list[str]:
    """Run ``systemctl show``; as root it needs no D-Bus, for PID 1 listens on a socket of its own."""
    import subprocess

    command = [_SYSTEMCTL, "show", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS / 2, check=True)
    except FileNotFoundError as error:
        raise _NoAnswerError(f"there is no {_SYSTEMCTL}") from error
    except subprocess.TimeoutExpired as error:
        raise _NoAnswerError(f"systemctl did not answer within {SECONDS:.0f} s") from error
    except (OSError, subprocess.CalledProcessError) as error:
        raise _NoAnswerError(f"systemctl failed ({error})") from error
    return done.stdout.splitlines()


def _systemctl_runtime(units: Sequence[str]) -> _Plain:
    # One block of properties a unit, in the order asked for, with blank lines between.
    wanted = ("ActiveState", "LoadState", _LEFT.decode())
    blocks = "\n".join(_systemctl(*(f"--property={each}" for each in wanted), "--", *units)).split("\n\n")
    values = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in blocks]
    found = [(each["ActiveState"], each["LoadState"] == "loaded", each[wanted[2]] != "0") for each in values]
    return found, bool(set(_systemctl("--property=SystemState", "--value")).intersection(_STARTING))


def _systemctl_going_down() -> bool:
    if "stopping" in _systemctl("--property=SystemState", "--value"):
        return True
    return any(line not in ("", "0") for line in _systemctl("--property=Job", "--value", "--", _SHUTDOWN))


def _bus_before(unit: str) -> tuple[str, ...]:
    # An object's path is its name with all but letters and digits escaped; see sd_bus_path_encode(3).
    name = "".join(each if each.isalnum() else f"_{ord(each):02x}" for each in unit)
    path = f"/org/freedesktop/systemd1/unit/{name}".encode()
    with _bus() as bus:
        units = bus.get_property(_SYSTEMD[0], path, _UNIT, b"Before", b"as")
    return tuple(each.decode() for each in units)


def _systemctl_before(unit: str) -> tuple[str, ...]:
    return tuple(" ".join(_systemctl("--property=Before", "--value", "--", unit)).split())
