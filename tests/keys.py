"""The keys of this run of the tests."""

from uplift.destinations.derived_ids import new_id_key
from uplift.sealing import KeyRing

MASTER_KEYS = KeyRing.new_entry("test")
KEY_RING = KeyRing.parse(MASTER_KEYS)
ID_KEY = new_id_key()
