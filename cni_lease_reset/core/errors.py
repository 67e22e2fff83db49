"""What can go wrong, each with the exit status it ends in (sysexits.h)."""


class CniLeaseResetError(Exception):
    """One line for the operator: what failed, where, what to do."""

    status = 1


class UsageError(CniLeaseResetError):
    """The command line asks for something that makes no sense."""

    status = 2


class InputOutputError(CniLeaseResetError):
    """A file could not be read or written; worth trying again."""

    status = 74  # EX_IOERR


class BusyError(CniLeaseResetError):
    """Another program holds a lock that we need."""

    status = 75  # EX_TEMPFAIL


class RefusedError(CniLeaseResetError):
    """What a person asked for would not be safe now; nothing was changed."""

    status = 75  # EX_TEMPFAIL


class NoAnswerError(CniLeaseResetError):
    """Whoever was asked is not there, takes too long, or says nothing that can be relied on."""


class ConfigError(CniLeaseResetError):
    """The configuration cannot be used. Never answered with defaults."""

    status = 78  # EX_CONFIG

    def __init__(self, path: str, line: int | None, problem: str) -> None:
        """``line`` counts from 1; ``None`` where the whole file is meant."""
        super().__init__(f"{path}: {problem}" if line is None else f"{path}:{line}: {problem}")


def describe(error: OSError) -> str:
    """Say what the system said, with the path in single quotes: ``'/x': Permission denied``."""
    what = error.strerror or str(error)
    return what if error.filename is None else f"{printable(str(error.filename), quoted=True)}: {what}"


def printable(text: str, *, quoted: bool = False) -> str:
    """Text that others wrote, fit for a terminal: control characters and invalid UTF-8 come out as escapes."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    return f"'{shown}'" if quoted else shown
