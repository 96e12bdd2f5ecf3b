"""Bounded benchmarks on loopback: `make bench` runs them all and prints their tables."""
