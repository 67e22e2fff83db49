"""The configuration: /etc/cni-lease-reset/config.yaml, or the defaults where there is none. Never a silent fallback."""

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ..core.errors import ConfigError, describe, printable
from ..core.model import ClearWhen, Config
from . import durable
from .node import CONFIG_FILE, STATE_DIRECTORY, Node, set_aside_directory

if TYPE_CHECKING:
    import yaml

_LIMIT: Final = 64 * 1024
_UNIT_NAME: Final = r"(?!-)[A-Za-z0-9:_.\\@-]{1,247}(?<!@)\.service"  # a name of systemd's, and no template
_PLAIN: Final = "-?(0|[1-9][0-9]*)"
_NESTED: Final = object()  # a list or mapping within a value: no setting takes one, never built (it may be a YAML bomb)
_NAME: Final = os.path.basename(CONFIG_FILE)
_PASSING: Final = ("/tmp", "/var/tmp", "/dev", "/proc", "/sys", "/run")  # within our unit, or after a boot


def read(node: Node) -> Config:
    """Read the node's configuration. Raises :class:`ConfigError` for anything that is not exactly right."""
    try:
        content, status = durable.read(node.path(CONFIG_FILE), _LIMIT)
    except FileNotFoundError as error:
        if os.path.islink(node.path(CONFIG_FILE)):
            raise ConfigError(_NAME, None, "is a symbolic link that leads nowhere") from error
        return Config()
    except OSError as error:
        raise ConfigError(_NAME, None, f"cannot be read: {describe(error)}") from error
    if status.st_uid not in node.trusted_users or status.st_mode & 0o022:
        raise ConfigError(_NAME, None, f"can be written by others than root: chown root, chmod go-w {CONFIG_FILE}")
    return parse(content)


def parse(content: bytes) -> Config:
    """Read settings from the file's content. Comments and blank lines are the defaults, without importing yaml."""
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(_NAME, content.count(b"\n", 0, error.start) + 1, "is not UTF-8") from error
    if all(not line.strip() or line.lstrip().startswith("#") for line in text.split("\n")):
        return Config()
    return _from_yaml(text)


def _from_yaml(text: str) -> Config:
    from . import packages

    packages.reach()
    import yaml

    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None or root.tag == "tag:yaml.org,2002:null":
            return Config()
        if not isinstance(root, yaml.MappingNode):
            raise ConfigError(_NAME, root.start_mark.line + 1, "must hold settings like 'clear_when: always'")
        return _settings(loader, root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        hint = ", indent with spaces" if "'\\t'" in str(error.problem) else ""
        raise ConfigError(_NAME, mark.line + 1 if mark else None, f"not valid YAML: {error.problem}{hint}") from error
    except yaml.YAMLError as error:
        raise ConfigError(_NAME, None, f"not valid YAML: {printable(str(error).splitlines()[0])}") from error
    except RecursionError as error:
        raise ConfigError(_NAME, None, "not valid YAML: nested too deeply") from error


def _settings(loader: "yaml.SafeLoader", root: "yaml.MappingNode") -> Config:
    values: dict[str, object] = {}
    for key_node, value_node in root.value:
        key, line = key_node.value, key_node.start_mark.line + 1
        if not isinstance(key, str):
            raise ConfigError(_NAME, line, "the name of a setting must be a word")
        if key not in _GETTERS:
            from difflib import get_close_matches  # only a mistake pays for it

            close = get_close_matches(key, _GETTERS, n=1)
            hint = f", did you mean '{close[0]}'?" if close else "; cni-lease-reset.yaml(5) lists all"
            raise ConfigError(_NAME, line, f"unknown setting {printable(key[:60], quoted=True)}{hint}")
        if key in values:
            raise ConfigError(_NAME, line, f"{key}: set twice")
        try:
            values[key] = _GETTERS[key](_value(loader, value_node))
        except ValueError as error:
            raise ConfigError(_NAME, value_node.start_mark.line + 1, f"{key}: {error}") from error
    # Each getter returns its field's type, which a dictionary cannot say.
    return Config()._replace(**values)  # type: ignore[arg-type]


def _value(loader: "yaml.SafeLoader", node: "yaml.Node", *, listed: bool = False) -> object:
    import yaml

    if isinstance(node, yaml.SequenceNode) and not listed:
        return [_value(loader, item, listed=True) for item in node.value]
    if not isinstance(node, yaml.ScalarNode):
        return _NESTED
    try:
        value = loader.construct_object(node)
    except (ValueError, LookupError, AttributeError) as error:  # PyYAML's own, where a tag and its text do not agree
        raise ValueError(f"{_shown(node.value)} is no {node.tag.rpartition(':')[2]}") from error
    # YAML 1.1 reads 0110 as 72 and 1:30 as 90, which nobody means: those stay texts, and no setting takes one.
    return value if listed or type(value) is not int or re.fullmatch(_PLAIN, node.value) else node.value


def _shown(value: object) -> str:
    if isinstance(value, list):
        return "a list of other things" if value else "an empty list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return "a nested value" if value is _NESTED else printable(repr(value)[:60])


def _names(value: object, example: str, problem: Callable[[str], str | None]) -> tuple[str, ...]:
    """A list of at least one text, none twice and none with a problem."""
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise ValueError(f"must be a list of names like [{example}], not {_shown(value)}")
    for name in value:
        if why := problem(name):
            raise ValueError(f"{printable(name[:60], quoted=True)} is {why}")
    return tuple(dict.fromkeys(value))


def _no_network(name: str) -> str | None:
    bad = "/" in name or name in ("", ".", "..") or not name.isprintable()
    return "no name of a network's directory" if bad else None


def _no_service(name: str) -> str | None:
    if re.fullmatch(_UNIT_NAME, name):
        return None
    meant = f"{name.partition('.')[0]}.service"
    return "no service" + (f", did you mean '{meant}'?" if re.fullmatch(_UNIT_NAME, meant) else "")


def _data_dir(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/") or not value.isprintable():
        raise ValueError(f"must be an absolute path, not {_shown(value)}")
    if os.path.normpath(value) != value or value.startswith("//"):
        raise ValueError(f"must be written without '..', '.', '//' or a final '/', not {_shown(value)}")
    for place in _PASSING:
        if f"{value}/".startswith(f"{place}/"):
            raise ValueError(f"cannot be below {place}, which our unit sees empty or a reboot empties")
    for ours in (STATE_DIRECTORY, os.path.dirname(set_aside_directory(value))):
        if f"{ours}/".startswith(f"{value.rstrip('/')}/") or value.startswith(f"{ours}/"):
            raise ValueError(f"must be beside our own directory {ours}, not at, above or below it")
    return value


def _clear_when(value: object) -> ClearWhen:
    if value not in list(ClearWhen):
        raise ValueError(f"must be one of {', '.join(ClearWhen)}, not {_shown(value)}")
    return ClearWhen(str(value))


def _whole(value: object, least: int, other: str = "") -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"must be a whole decimal number from {least}{other}, not {_shown(value)}")
    return value


_GETTERS: Final[dict[str, Callable[[object], object]]] = {
    "networks": lambda value: _names(value, "k8s-pod-network", _no_network),
    "data_dir": _data_dir,
    "clear_when": _clear_when,
    "max_kept_leases": lambda value: None if value is None else _whole(value, 0, " or null"),
    "runtime_units": lambda value: _names(value, "rke2-server.service", _no_service),
    "keep_resets": lambda value: _whole(value, 1),
}
