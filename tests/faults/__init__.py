"""A hostile world: crashes, faults, hostile files. `make fault-test` runs it at length and writes docs/RELIABILITY.md."""
