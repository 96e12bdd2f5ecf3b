"""Records to submit, and how many go into one request."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from .models import LineProblem, is_settled

# Several requests, not one long one: each is safe once it has its answer, a failed one is repeated
# quickly, and each is smaller than the 1 MiB that proxies such as nginx accept.
BATCH_RECORDS = 200
BATCH_BYTES = 512 * 1024

Resource = bytes | str | Mapping[str, Any]
"""A FHIR resource. As bytes or text, its bytes are delivered unchanged."""

_BREAKS_TO_SPACES = bytes.maketrans(b"\r\n", b"  ")


@dataclass(frozen=True, slots=True)
class Record:
    """A FHIR resource of a batch, and what an upload says about it."""

    resource: Resource
    fhir_version: str | None = None
    """None: the version that the batch names."""
    source: str | None = None
    record_id: str | None = None
    source_url: str | None = None
    """Its address at the FHIR server that it is from."""
    received_at: str | None = None
    """When the phone got it: ISO 8601, with a zone."""
    force: bool = False
    """Whether it counts as newer than what came before."""

    @property
    def size(self) -> int:
        """About how many bytes it has."""
        return len(_bytes_of(self.resource))

    def to_line(self) -> bytes:
        """The record as a line of NDJSON."""
        # JSON allows a line break only between tokens, not inside a string (RFC 8259, 2 and 7), so
        # a space in its place changes no value.
        return envelope(self).translate(_BREAKS_TO_SPACES) + b"\n"


@dataclass(frozen=True, slots=True)
class RecordResult:
    """What the API made of a record of a batch: an upload or a problem."""

    record: Record
    id: str | None = None
    """The upload's id."""
    status: str | None = None
    """The upload's status; None if it is not kept any more."""
    duplicate: bool = False
    problem: LineProblem | None = None

    @property
    def settled(self) -> bool:
        """Whether the upload stays like this until somebody acts."""
        return self.status is not None and is_settled(self.status)


def envelope(record: Record, user: str | None = None) -> bytes:
    """An envelope around the record's own bytes. Names stay out of addresses, which are logged."""
    labels = {
        "user": user,
        "fhirVersion": record.fhir_version,
        "source": record.source,
        "recordId": record.record_id,
        "sourceUrl": record.source_url,
        "receivedAt": record.received_at,
        "force": record.force or None,
    }
    members = [
        b'"%b":%b,' % (name.encode(), msgspec.json.encode(value))
        for name, value in labels.items()
        if value is not None
    ]
    return b'{%b"resource":%b}' % (b"".join(members), _bytes_of(record.resource))


def _bytes_of(resource: Resource) -> bytes:
    if isinstance(resource, bytes):
        return resource
    return resource.encode() if isinstance(resource, str) else msgspec.json.encode(resource)


Item = TypeVar("Item")


class Cutter(Generic[Item]):
    """Cuts a stream of records into pieces, each for one request."""

    def __init__(self) -> None:
        self._piece: list[Item] = []
        self._bytes = 0

    def add(self, item: Item, size: int) -> list[Item]:
        """Add one. Returns the piece before it if it has no place there, else nothing."""
        full = []
        if self._piece and (len(self._piece) == BATCH_RECORDS or self._bytes + size > BATCH_BYTES):
            full = self.rest()
        self._piece.append(item)
        self._bytes += size
        return full

    def rest(self) -> list[Item]:
        """What is left when the stream ends."""
        piece, self._piece, self._bytes = self._piece, [], 0
        return piece
