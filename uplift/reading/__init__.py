"""Reads for callers: what became of an upload, and what 1upHealth has.

`long_poll` waits until an upload changes, `status` opens its status, and `read_back` reads FHIR
resources at 1upHealth.
"""
