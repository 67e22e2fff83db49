"""Decides: what the last boot was, what is due, what to say. Pure: no ``os``, no clock, nothing above it."""
