"""The master keys of this run of the tests."""

from uplift.sealing import KeyRing

MASTER_KEYS = KeyRing.new_entry("test")
KEY_RING = KeyRing.parse(MASTER_KEYS)
