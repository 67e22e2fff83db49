"""``python3 -m cni_lease_reset``: the same command."""

import sys

from .cli import main

sys.exit(main())
