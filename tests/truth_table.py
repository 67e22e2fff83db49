"""The README's truth table: marker, record and newest lease in, verdict out."""

import pytest
from conftest import OTHER, THIS

from cni_lease_reset.core.model import DamagedMarker, Marker, NoMarker, State

SINCE = "2026-11-23T06:12:01Z"
NEWER = (0.5, "lease 10.52.0.7 of k8s-pod-network, written 2026-11-23T06:12:02Z")
AS_OLD = (0.0, NEWER[1])
NOTHING = (0.0, "")
ROWS = [
    pytest.param(NoMarker(), False, NEWER, "unknown", "none", id="fresh install"),
    pytest.param(
        DamagedMarker("it is empty"), False, NEWER, "damaged", "unreadable", id="marker emptied by a power cut"
    ),
    pytest.param(Marker(State.RUNNING, OTHER, SINCE), False, NEWER, "unclean", "running", id="power cut"),
    pytest.param(
        Marker(State.CLEAN, OTHER, SINCE),
        False,
        NEWER,
        "unknown",
        "clean, and a lease is newer than it",
        id="a boot that nobody saw",
    ),
    pytest.param(Marker(State.CLEAN, OTHER, SINCE), False, AS_OLD, "clean", "clean", id="systemctl reboot"),
    pytest.param(Marker(State.CLEAN, OTHER, SINCE), False, NOTHING, "clean", "clean", id="no leases"),
    pytest.param(Marker(State.RUNNING, THIS, SINCE), False, NEWER, "same-boot", "any", id="service restarted by hand"),
    pytest.param(Marker(State.CLEAN, THIS, SINCE), True, NEWER, "same-boot", "any", id="soft-reboot"),
    pytest.param(
        Marker(State.RUNNING, OTHER, SINCE), True, NEWER, "same-boot", "any", id="started again after it failed"
    ),
    pytest.param(Marker(State.CLEAN, OTHER, SINCE), True, NEWER, "same-boot", "any", id="clean, and started again"),
    pytest.param(NoMarker(), True, NEWER, "same-boot", "any", id="no marker, and started again"),
    pytest.param(DamagedMarker("x"), True, NEWER, "same-boot", "any", id="damaged, and started again"),
]
