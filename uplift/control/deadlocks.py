"""The retry policy for groups of uploads.

A worker that records may have locked one of them, and wait for another: a deadlock.
"""

from sqlalchemy.exc import OperationalError
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_fixed

from uplift.ledger.database import is_away


def _is_of_this_transaction(error: BaseException) -> bool:
    return isinstance(error, OperationalError) and not is_away(error)


retry_deadlocks = retry(
    retry=retry_if_exception(_is_of_this_transaction),
    stop=stop_after_attempt(3),
    wait=wait_fixed(0.2),
    reraise=True,
)
"""Runs a transaction again that PostgreSQL ended, such as one of two in a deadlock."""
