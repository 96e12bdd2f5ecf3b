"""A user, for every test that needs only one."""

import pytest

from tests.uplift.ledger import rows
from uplift.ledger.database import Database
from uplift.ledger.users import UserRow
from uplift.sealing import KeyRing


@pytest.fixture
async def alice(database: Database, key_ring: KeyRing) -> UserRow:
    """A user without a grant."""
    return await rows.add_user(database, key_ring)
