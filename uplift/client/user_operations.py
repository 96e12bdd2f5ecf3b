"""The operations on users, their grants, tokens and pauses, and on what 1upHealth has of them."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from .messages import Call, Page, Reply, Request, json_of
from .models import (
    Bundle,
    DeviceToken,
    DeviceTokenList,
    Erasure,
    ListedDeviceToken,
    Pause,
    PauseList,
    User,
    UserPage,
    UserSummary,
)
from .requests import linked, listed, query, quoted, sending


def add_user(app_user_id: str) -> Call[User]:
    """Create a user at 1upHealth, or adopt the one that is there."""
    return Call(sending("POST", "/v1/users", {"appUserId": app_user_id}), json_of(User))


def users(*, grant: str | None = None, order: str = "desc", limit: int = 500) -> Call[Page[User]]:
    """Users, the newest first; with the order `asc`, the oldest first. `grant` is a filter."""
    target = f"/v1/users{query(grant=grant, order=order, limit=limit)}"
    return listed(target, UserPage, lambda page: page.users)


def user(app_user_id: str) -> Call[User]:
    """A user, and the state of the grant."""
    return Call(Request("GET", _user_path(app_user_id)), json_of(User))


def user_summary(app_user_id: str) -> Call[UserSummary]:
    """A user's uploads in numbers: has everything arrived?"""
    return Call(Request("GET", f"{_user_path(app_user_id)}/summary"), json_of(UserSummary))


def store_grant(
    app_user_id: str, *, access_token: str, expires_in: float, refresh_token: str | None = None
) -> Call[User]:
    """Store tokens of 1upHealth that the backend obtained itself."""
    tokens = {
        "accessToken": access_token,
        "refreshToken": refresh_token,
        "expiresIn": expires_in,
    }
    return Call(sending("PUT", f"{_user_path(app_user_id)}/grant", tokens), json_of(User))


def move_user(app_user_id: str, destination: str) -> Call[User]:
    """Send what a user brings to another destination from now on, and what was never sent."""
    wanted = {"destination": destination}
    return Call(sending("PUT", f"{_user_path(app_user_id)}/destination", wanted), json_of(User))


def name_patient(
    app_user_id: str, resource_id: str, *, destination: str | None = None
) -> Call[User]:
    """Say which Patient stands for a user at a destination, before anything is sent there.

    Without a destination, it is at the user's own.
    """
    wanted = {"id": resource_id, "destination": destination}
    return Call(sending("PUT", f"{_user_path(app_user_id)}/patient", wanted), json_of(User))


def resend_user(app_user_id: str) -> Call[User]:
    """Make the next upload of each of a user's records new content. Their `sync_token` changes."""
    return Call(Request("POST", f"{_user_path(app_user_id)}/resend"), json_of(User))


def erase_user(
    app_user_id: str, *, wait: float = 10.0, upstream: str | None = None
) -> Call[Erasure]:
    """Destroy all data of a user. While it is `erasing`, call it again to see when it ends.

    With the upstream `delete`, what they have at destinations is deleted first; with `keep` it
    stays.
    """
    target = f"{_user_path(app_user_id)}{query(wait=f'{wait:.3f}', upstream=upstream)}"
    return Call(Request("DELETE", target), json_of(Erasure))


def device_tokens(app_user_id: str) -> Call[list[ListedDeviceToken]]:
    """The device tokens of a user that are neither revoked nor expired."""
    decode = json_of(DeviceTokenList)
    target = f"{_user_path(app_user_id)}/device-tokens"
    return Call(Request("GET", target), lambda reply: decode(reply).device_tokens)


def add_device_token(
    app_user_id: str, *, expires_in: int, name: str | None = None
) -> Call[DeviceToken]:
    """Make a token with which a device can submit, read and cancel this user's uploads."""
    wanted = {"expiresIn": expires_in, "name": name}
    request = sending("POST", f"{_user_path(app_user_id)}/device-tokens", wanted)
    # A token whose answer is lost would stay valid, and nobody would know of it.
    return Call(request, json_of(DeviceToken), repeatable=False)


def revoke_device_token(app_user_id: str, token_id: str) -> Call[None]:
    """Revoke a device token at once."""
    path = f"{_user_path(app_user_id)}/device-tokens/{quoted(token_id)}"
    return Call(Request("DELETE", path), _nothing)


def revoke_device_tokens(app_user_id: str) -> Call[None]:
    """Revoke all device tokens of a user at once."""
    return Call(Request("DELETE", f"{_user_path(app_user_id)}/device-tokens"), _nothing)


def pauses() -> Call[list[Pause]]:
    """All pauses, the oldest first."""
    decode = json_of(PauseList)
    return Call(Request("GET", "/v1/pauses"), lambda reply: decode(reply).pauses)


def pause(app_user_id: str | None = None) -> Call[Pause]:
    """Stop sending for this user, or for everybody."""
    return Call(Request("PUT", _pause_path(app_user_id)), json_of(Pause))


def resume(app_user_id: str | None = None) -> Call[None]:
    """End the pause of this user, or of everybody."""
    return Call(Request("DELETE", _pause_path(app_user_id)), _nothing)


def read_back(app_user_id: str, fhir_version: str, path: str, **search: str) -> Call[bytes]:
    """What the destination has of the user: a resource or one page of a search, as its own bytes.

    Args:
        app_user_id: your own name for the person.
        fhir_version: `DSTU2`, `STU3` or `R4`.
        path: as in FHIR: `Condition`, `Condition/1` or `Patient/1/$everything`.
        search: FHIR's search parameters.
    """
    target = f"{_user_path(app_user_id)}/fhir/{quoted(fhir_version)}/{quote(path, safe='/$')}"
    return Call(Request("GET", target + query(**search)), lambda reply: reply.content)


def search(
    app_user_id: str, fhir_version: str, resource_type: str, parameters: Mapping[str, str] = {}
) -> Call[Page[dict[str, Any]]]:
    """The resources that a search finds at the destination."""
    return _bundle_page(read_back(app_user_id, fhir_version, resource_type, **parameters).request)


def _nothing(_: Reply) -> None:
    return None


def _user_path(app_user_id: str) -> str:
    return f"/v1/users/{quoted(app_user_id)}"


def _pause_path(app_user_id: str | None) -> str:
    return "/v1/pause" if app_user_id is None else f"{_user_path(app_user_id)}/pause"


def _bundle_page(request: Request) -> Call[Page[dict[str, Any]]]:
    shape = json_of(Bundle)

    def read(reply: Reply) -> Page[dict[str, Any]]:
        page = shape(reply)
        following = next((each.url for each in page.link if each.relation == "next"), None)
        found = [each.resource for each in page.entry if each.resource is not None]
        return Page(found, _bundle_page(linked(following)) if following else None)

    return Call(request, read)
