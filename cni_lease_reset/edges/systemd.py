"""What systemd knows: over D-Bus with pystemd, or from systemctl where D-Bus does not answer. The only pystemd here."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, NoReturn, Protocol, TypeVar

from ..core.errors import RefusedError

if TYPE_CHECKING:
    from pystemd.dbuslib import DBus

DOWN: Final = ("inactive", "failed")  # any other ActiveState counts as up
SECONDS: Final = 5.0  # for D-Bus, and again for systemctl
_SYSTEMCTL: Final = "/usr/bin/systemctl"
_SYSTEMD_RUN: Final = "/usr/bin/systemd-run"
_SYSTEMD: Final = (b"org.freedesktop.systemd1", b"/org/freedesktop/systemd1", b"org.freedesktop.systemd1.Manager")
_SHUTDOWN: Final = "shutdown.target"

T = TypeVar("T")


class Answer(NamedTuple, Generic[T]):
    """An answer, and why it was not D-Bus that gave it; the value is ``None`` where nobody answered."""

    value: T | None
    remark: str | None = None


class TransientUnit(NamedTuple):
    """A oneshot unit that lives as long as its command; see systemd.service(5)."""

    name: str
    description: str
    before: tuple[str, ...]
    command: tuple[str, ...]
    afterwards: tuple[str, ...]  # ExecStopPost=: runs however the command ended
    output: str  # a file
    seconds: int  # how long the command may take


class Manager(Protocol):
    """The two questions that we have for systemd."""

    def unit_states(self, units: Sequence[str]) -> Answer[dict[str, str]]:
        """Tell each unit's ActiveState; a unit that does not exist is ``inactive``."""
        ...

    def going_down(self) -> Answer[bool]:
        """Tell whether the system shuts down."""
        ...


class Inspector(Protocol):
    """What ``status`` asks of it."""

    def ordered_before(self, unit: str) -> Answer[tuple[str, ...]]:
        """Tell which units a unit is ordered before, whether they exist or not."""
        ...


class Operator(Manager, Protocol):
    """What ``recover`` asks of it besides."""

    def stop(self, units: Sequence[str]) -> None:
        """Stop units and wait until they are down. Raises :class:`RefusedError`."""
        ...

    def start(self, unit: TransientUnit) -> None:
        """Start a transient unit, without waiting for its end. Raises :class:`RefusedError`."""
        ...

    def at_work(self, unit: str) -> bool | None:
        """Tell whether a unit runs, or has a job that waits; ``None`` where nobody can tell."""
        ...


class NoSystemd:
    """A tree under ``--root``: no systemd runs there."""

    def unit_states(self, units: Sequence[str]) -> Answer[dict[str, str]]:
        """Every unit is inactive, for nothing runs."""
        return Answer(dict.fromkeys(units, "inactive"))

    def going_down(self) -> Answer[bool]:
        """Nobody can tell."""
        return Answer(None)

    def ordered_before(self, unit: str) -> Answer[tuple[str, ...]]:  # noqa: ARG002  the Protocol's
        """Nobody can tell."""
        return Answer(None)


class Systemd:
    """The systemd of this machine."""

    def unit_states(self, units: Sequence[str]) -> Answer[dict[str, str]]:
        """Ask for all units in one call; loading unit objects would parse 65 kB of XML for each."""
        return _ask(lambda: _bus_unit_states(units), lambda: _systemctl_unit_states(units))

    def going_down(self) -> Answer[bool]:
        """Before systemd 246 the state could still say "starting": a job on shutdown.target is the other sign."""
        return _ask(_bus_going_down, _systemctl_going_down)

    def ordered_before(self, unit: str) -> Answer[tuple[str, ...]]:
        """Ask for one property; systemd loads the unit if need be."""
        return _ask(lambda: _bus_before(unit), lambda: _systemctl_before(unit))

    def stop(self, units: Sequence[str]) -> None:
        """Stop them with ``systemctl``, which waits for the jobs; its own error is the reason."""
        import subprocess

        done = subprocess.run([_SYSTEMCTL, "stop", "--", *units], stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            raise RefusedError(f"{', '.join(units)} cannot be stopped: {done.stderr.strip()}")

    def start(self, unit: TransientUnit) -> None:
        """Start it over D-Bus, or with ``systemd-run`` where D-Bus does not answer."""
        try:
            _bus_start(unit)
        except _NoAnswerError:
            _run_start(unit)

    def at_work(self, unit: str) -> bool | None:
        """A unit that waits for another one's stop is inactive and has a job."""
        return _ask(lambda: _bus_at_work(unit), lambda: _systemctl_at_work(unit)).value


class _NoAnswerError(Exception):
    """Nobody is there, or takes too long."""


def _ask(bus: Callable[[], T], systemctl: Callable[[], T]) -> Answer[T]:
    try:
        return Answer(bus())
    except _NoAnswerError as error:
        silent = str(error)
    try:
        return Answer(systemctl(), f"{silent}; asked systemctl instead")
    except _NoAnswerError as error:
        return Answer(None, f"{silent}; {error}")


@contextmanager
def _bus() -> "Iterator[DBus]":
    """Open the system bus, for at most ``SECONDS``; a bus that accepts and never answers would block for 90."""
    import signal

    _stand_in_for_the_package()
    try:
        from pystemd.dbusexc import DBusBaseError
        from pystemd.dbuslib import DBus
    except ImportError as error:
        raise _NoAnswerError(f"pystemd cannot be imported ({error})") from error
    before = signal.signal(signal.SIGALRM, _too_long)
    try:
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        with DBus() as bus:
            yield bus
    except DBusBaseError as error:
        raise _NoAnswerError(f"D-Bus cannot be reached ({error})") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


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


def _too_long(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise _NoAnswerError(f"D-Bus did not answer within {SECONDS:.0f} s")


def _bus_units(bus: "DBus", units: Sequence[str]) -> list[tuple[bytes, ...]]:
    """Ask for units, loaded or not: (name, …, ActiveState, …, job id, …), see org.freedesktop.systemd1(5)."""
    from pystemd.dbuslib import apply_signature

    names = apply_signature(b"as", [[unit.encode() for unit in units]])
    reply: list[tuple[bytes, ...]] = bus.call_method(*_SYSTEMD, b"ListUnitsByNames", names).body
    return reply


def _bus_unit_states(units: Sequence[str]) -> dict[str, str]:
    with _bus() as bus:
        return {row[0].decode(): row[3].decode() for row in _bus_units(bus, units)}


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
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    except FileNotFoundError as error:
        raise _NoAnswerError(f"there is no {_SYSTEMCTL}") from error
    except subprocess.TimeoutExpired as error:
        raise _NoAnswerError(f"systemctl did not answer within {SECONDS:.0f} s") from error
    except (OSError, subprocess.CalledProcessError) as error:
        raise _NoAnswerError(f"systemctl failed ({error})") from error
    return done.stdout.splitlines()


def _systemctl_unit_states(units: Sequence[str]) -> dict[str, str]:
    # One block of properties a unit, in the order asked for, with blank lines between.
    states = [line for line in _systemctl("--property=ActiveState", "--value", "--", *units) if line]
    return dict(zip(units, states, strict=False))


def _systemctl_going_down() -> bool:
    if "stopping" in _systemctl("--property=SystemState", "--value"):
        return True
    return any(line not in ("", "0") for line in _systemctl("--property=Job", "--value", "--", _SHUTDOWN))


def _bus_before(unit: str) -> tuple[str, ...]:
    # An object's path is its name with all but letters and digits escaped; see sd_bus_path_encode(3).
    name = "".join(each if each.isalnum() else f"_{ord(each):02x}" for each in unit)
    path = f"/org/freedesktop/systemd1/unit/{name}".encode()
    with _bus() as bus:
        units = bus.get_property(_SYSTEMD[0], path, b"org.freedesktop.systemd1.Unit", b"Before", b"as")
    return tuple(each.decode() for each in units)


def _systemctl_before(unit: str) -> tuple[str, ...]:
    return tuple(" ".join(_systemctl("--property=Before", "--value", "--", unit)).split())


def _bus_at_work(unit: str) -> bool:
    with _bus() as bus:
        return any(row[3].decode() not in DOWN or row[7] for row in _bus_units(bus, [unit]))


def _systemctl_at_work(unit: str) -> bool:
    lines = _systemctl("--property=ActiveState", "--property=Job", "--", unit)
    # Without a job systemctl prints "Job=", as it does for any property that is not set.
    return not {f"ActiveState={state}" for state in DOWN}.intersection(lines) or any(
        line.startswith("Job=") and line not in ("Job=", "Job=0") for line in lines
    )


def _bus_start(unit: TransientUnit) -> None:
    """Call StartTransientUnit; see org.freedesktop.systemd1(5) for its signature."""
    with _bus() as bus:
        from pystemd.dbuslib import apply_signature
        from pystemd.systemd1.unit_signatures import signature_array

        properties = {
            b"Description": unit.description.encode(),
            b"Type": b"oneshot",
            b"CollectMode": b"inactive-or-failed",
            b"Before": [name.encode() for name in unit.before],
            b"TimeoutStartUSec": unit.seconds * 1_000_000,
            b"ExecStart": [_execution(unit.command)],
            b"ExecStopPost": [_execution(unit.afterwards)],
            b"_custom": (b"StandardOutputFileToAppend", b"s", unit.output.encode()),
        }
        arguments = apply_signature(b"ss", [unit.name.encode(), b"fail"]) + signature_array(properties)
        no_other_units = [(ord("a"), b"(sa(sv))"), (-1, None)]
        bus.call_method(*_SYSTEMD, b"StartTransientUnit", arguments + no_other_units)


def _execution(command: Sequence[str]) -> tuple[bytes, list[bytes], bool]:
    return command[0].encode(), [argument.encode() for argument in command], False


def _run_start(unit: TransientUnit) -> None:
    import subprocess

    properties = (
        "Type=oneshot",
        "CollectMode=inactive-or-failed",
        f"Before={_escaped(unit.before)}",
        f"TimeoutStartSec={unit.seconds}",
        f"ExecStopPost={_escaped(unit.afterwards)}",
        f"StandardOutput=append:{unit.output}",
    )
    command = [
        _SYSTEMD_RUN,
        "--quiet",
        "--no-block",
        f"--unit={unit.name}",
        f"--description={unit.description}",
    ]
    command += [f"--property={each}" for each in properties]
    done = subprocess.run([*command, "--", *unit.command], stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise RefusedError(f"{unit.name} cannot be started: {done.stderr.strip()}")


def _escaped(words: Sequence[str]) -> str:
    """Join words as systemd splits them; a unit's name may hold a backslash, and nothing else that means something."""
    return " ".join(words).replace("\\", "\\\\")
