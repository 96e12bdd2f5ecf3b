"""What the backend may call a person. Pure.

PostgreSQL accepts no U+0000, and the name appears in addresses and on terminals.
"""

import re

MAX_NAME = 256
"""In characters."""

PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]+$"
"""No controls, line separators or changes of the direction of text."""

NOT_PRINTABLE = (
    "It has a character that nobody sees: a control character such as a line break, or one that"
    " changes the direction of text. Leave it out."
)


def wrong_with(name: str) -> str | None:
    """What is wrong with the name of a person, as a sentence; None if it may be one."""
    if not 1 <= len(name) <= MAX_NAME:
        return f"A name has 1 to {MAX_NAME} characters."
    return None if re.fullmatch(PRINTABLE, name) else NOT_PRINTABLE
