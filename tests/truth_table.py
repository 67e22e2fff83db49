"""The README's truth table: marker and record in, verdict out."""

import pytest
from conftest import OTHER, THIS

from cni_lease_reset.core.model import DamagedMarker, Marker, NoMarker, State

SINCE = "2026-11-23T06:12:01Z"
ROWS = [
    pytest.param(NoMarker(), False, "unknown", "none", id="fresh install"),
    pytest.param(DamagedMarker("it is empty"), False, "damaged", "unreadable", id="marker emptied by a power cut"),
    pytest.param(Marker(State.RUNNING, OTHER, SINCE), False, "unclean", "running", id="power cut"),
    pytest.param(Marker(State.CLEAN, OTHER, SINCE), False, "clean", "clean", id="systemctl reboot"),
    pytest.param(Marker(State.RUNNING, THIS, SINCE), False, "same-boot", "any", id="service restarted by hand"),
    pytest.param(Marker(State.CLEAN, THIS, SINCE), True, "same-boot", "any", id="soft-reboot"),
    pytest.param(Marker(State.RUNNING, OTHER, SINCE), True, "same-boot", "any", id="started again after it failed"),
    pytest.param(Marker(State.CLEAN, OTHER, SINCE), True, "same-boot", "any", id="clean, and started again"),
    pytest.param(NoMarker(), True, "same-boot", "any", id="no marker, and started again"),
    pytest.param(DamagedMarker("x"), True, "same-boot", "any", id="damaged, and started again"),
]
