"""What does not come with Python: PyYAML and pystemd."""

import sys


def reach() -> None:
    """Let packages be found. The command is started with ``-S``: to look for them is a tenth of a clean boot."""
    if sys.flags.no_site and "site" not in sys.modules:
        import site

        sys.path += site.getsitepackages()  # main() would read .pth files, too, in as much time again
