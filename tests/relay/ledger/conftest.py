"""A user, for every test that needs only one."""

import pytest

from relay.ledger.database import Database
from relay.ledger.users import UserRow
from relay.sealing import KeyRing
from tests.relay.ledger import rows


@pytest.fixture
async def alice(database: Database, ring: KeyRing) -> UserRow:
    """A user without a grant."""
    return await rows.add_user(database, ring)
