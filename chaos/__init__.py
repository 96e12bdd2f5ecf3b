"""The kill storm: real processes are killed, frozen and lied to, then nothing may be missing.

`make storm` runs it on loopback; docs/reliability.md says what it checks and what it found.
"""
