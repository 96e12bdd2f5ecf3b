"""What may be printed on a terminal. Everything that a command prints goes through here.

Anyone may have made the names in an archive or the message of a server. Printed as they are, they
could steer the terminal or show a text in another order.
"""

import unicodedata

_NOT_PRINTED = ("Cc", "Cf", "Cs", "Zl", "Zp")
# Words of some languages, and some emoji, need the two joiners.
_SHOWN = "\n\u200c\u200d"


def printable(text: str) -> str:
    """`text` without control characters and those that change the direction; a `\\n` stays."""
    if text.isprintable():
        return text
    return "".join(char if is_shown(char) else "\N{REPLACEMENT CHARACTER}" for char in text)


def is_shown(char: str) -> bool:
    """Whether a character may be printed."""
    return char in _SHOWN or unicodedata.category(char) not in _NOT_PRINTED
