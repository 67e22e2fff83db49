"""``config``: the effective configuration, and the drop-in that a ``data_dir`` of one's own needs."""

import os

from ..core.model import ClearWhen, Config
from ..edges import packages


def as_text(config: Config) -> str:
    """Write the effective configuration as YAML, each line with where it comes from, and the drop-in that it needs."""
    packages.reach()
    import yaml

    lines, default = [], Config()._asdict()
    for name, value in config._asdict().items():
        plain = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, ClearWhen) else value
        text = yaml.safe_dump(plain, default_flow_style=True, width=float("inf"), allow_unicode=True).splitlines()[0]
        lines.append(f"{name}: {text}  # {'default' if value == default[name] else 'from the file'}\n")
    if config.data_dir != default["data_dir"]:
        above = os.path.dirname(config.data_dir)
        lines.append("\n# For this data_dir: systemctl edit cni-lease-reset{,-recover}.service\n# [Unit]\n")
        lines.append(f"# RequiresMountsFor={_in_unit(above)}\n# [Service]\n")
        lines.append(f"# ReadWritePaths={_in_unit(f'-{above}')}\n")  # "-": it starts without it, too
    return "".join(lines)


def _in_unit(path: str) -> str:
    """Write a path as a unit's line takes it; see systemd.syntax(7)."""
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"' if " " in path or "'" in path else escaped
