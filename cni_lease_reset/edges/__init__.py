"""Touches: each module knows one thing outside, the marker, the leases, systemd, the journal, and so on."""
