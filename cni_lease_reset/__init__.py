"""Sets aside the pod addresses that an unclean shutdown leaked, before RKE2 starts."""

__version__ = "1.0.0"
