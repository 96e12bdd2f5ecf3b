"""Whether two records under one type and id are the same one, though their labels differ. Pure."""

from dataclasses import dataclass
from enum import Enum, auto


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a record comes from, as keyed hashes: its source's label, and its FHIR server."""

    source: bytes | None
    server: bytes | None


class Verdict(Enum):
    """What two records under one type and id are to each other."""

    SAME_SOURCE = auto()  # one record, and their labels are names of one source
    SAME_RECORD = auto()  # one record; their labels may mean different sources otherwise
    SAME_CONTENT = auto()  # two records of two servers, which happen to be equal now
    COLLIDE = auto()  # two records


def judge(one: Origin, other: Origin, *, same_content: bool, same_source: bool) -> Verdict:
    """Compare a record that comes with one that is there.

    `same_source` is whether their labels are known as names of one source.
    """
    if one.server is not None and other.server is not None and one.server != other.server:
        return Verdict.SAME_CONTENT if same_content else Verdict.COLLIDE
    if same_content:
        labelled = one.source is not None and other.source is not None
        differ = one.source != other.source
        return Verdict.SAME_SOURCE if labelled and differ else Verdict.SAME_RECORD
    if same_source or (one.server is not None and one.server == other.server):
        return Verdict.SAME_RECORD
    return Verdict.COLLIDE
