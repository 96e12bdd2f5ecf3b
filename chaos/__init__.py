"""The chaos test: real processes are killed, frozen and misled; then no upload may be missing.

`make chaos` runs it on loopback; docs/reliability.md says what it checks and what it found.
"""
