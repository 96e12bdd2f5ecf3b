"""What makes one kind of server answer otherwise than another. The routes of this room read it."""

from dataclasses import dataclass
from typing import Literal

Auth = Literal["none", "basic", "bearer", "client_credentials", "private_key_jwt", "jwt_bearer"]
"""How the deployment logs in: see `login`."""

Integrity = Literal["always", "single", "never"]
"""Whether a reference must lead to something: in every write, in those of a request of their own
(and not in a `batch`), or in none."""

Throttle = Literal["none", "retry_after", "rate_limit"]
"""What a 429 says about the wait: nothing, `Retry-After` in each, or the `RateLimit` field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """How a kind of server answers. The defaults are what most of them do."""

    title: str
    versions: tuple[str, ...]
    """The bases: `r4`, `stu3`, `dstu2`."""
    auth: Auth = "client_credentials"
    """The login, where the sandbox's options name none."""
    scope: str = ""
    """The scope that a token must be asked for by client_credentials, `{base}` being one of its
    bases; empty if any will do."""
    is_hapi: bool = False
    """Whether it is HAPI: its codes, `meta.source`, the DSTU2 base's own ways."""

    client_ids: bool = True
    """Whether a PUT to an id that is not there creates it; otherwise it is a 404."""
    numeric_ids: bool = True
    """Whether such an id may have digits only."""
    checks_ids_of_posts: bool = False
    """Whether an id in the body of a POST must be one by FHIR's rule."""
    opaque_versions: bool = False
    """Whether a versionId is a word of the server's, and no number."""
    equal_put_is_a_version: bool = False
    """Whether a PUT of what is there makes one more version."""

    stale_if_match: int = 412
    """The answer to `If-Match` with another version than the latest."""
    if_match_without: int | None = 412
    """The answer to `If-Match` where nothing is, or was; None: it is not looked at."""
    searches_with_if_match: bool = True
    """Whether `If-Match` is looked at where a PUT names a search in place of an id."""
    lock_conflict: int = 409
    """The answer to one of two that write one resource at once."""

    integrity: Integrity = "never"
    dangling: int = 400
    """The answer to a reference that leads to nothing."""
    keeps_targets: bool = False
    """Whether what something refers to cannot be deleted: 409."""
    external_references: bool = True
    """Whether references to other servers are taken."""

    delete_status: int = 204
    delete_again_status: int = 204
    """Of what was deleted before, or never there."""
    gone: int = 410
    """The answer to a read of what was deleted."""

    throttle: Throttle = "none"
    max_entries: int | None = None
    """How many entries a Bundle may have."""
    max_bytes: int | None = None
    """How large a resource may be."""
    max_note: int | None = None
    """How many characters of text an attachment of a DocumentReference may have."""
    needs_media_type: bool = False
    """Whether a body must be `application/fhir+json`."""
    checks_narrative: bool = False
    """Whether a narrative must be the HTML that FHIR allows."""
    bundles: tuple[str, ...] = ("batch", "transaction")

    adds: Literal["nothing", "source", "created_at", "owner", "notes"] = "nothing"
    """What it adds to what it stores: see `additions`."""
    declares: frozenset[str] = frozenset({"updateCreate", "conditionalCreate", "conditionalUpdate"})
    """The abilities that `/metadata` names with true."""
