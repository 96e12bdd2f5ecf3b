"""`/_sandbox/`: the tool beside the simulation. Asks for faults, shows what was received."""

import base64
from collections import Counter
from typing import Any

import orjson
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from uplift.sandbox import rules
from uplift.sandbox.oauth import token_body
from uplift.sandbox.responses import response
from uplift.sandbox.state import Sandbox
from uplift.sandbox.store import ShelfKey, StoredResource


class Control:
    """The control API of one sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def routes(self) -> list[Route]:
        """To be mounted at `/_sandbox`."""
        return [
            Route("/health", self.health, methods=["GET"]),
            Route("/faults", self.faults, methods=["GET", "PUT", "POST", "DELETE"]),
            Route("/resources", self.resources, methods=["GET"]),
            Route("/counts", self.counts, methods=["GET"]),
            Route("/requests", self.requests, methods=["GET"]),
            Route("/grants", self.grants, methods=["POST"]),
            Route("/reset", self.reset, methods=["POST"]),
        ]

    async def health(self, _: Request) -> Response:
        """Whether it responds."""
        return response({"ids": "kept" if self._sandbox.config.keeps_ids else "assigned"})

    async def faults(self, request: Request) -> Response:
        """GET shows the rules, PUT replaces them, POST adds, DELETE clears."""
        faults = self._sandbox.faults
        if request.method in ("PUT", "POST"):
            try:
                asked = rules.RULES.validate_json(await request.body())
            except ValidationError as wrong:
                details = wrong.errors(
                    include_url=False, include_input=False, include_context=False
                )
                return response({"error": "These rules cannot be read", "details": details}, 400)
            if request.method == "PUT":
                faults.clear()
            for rule in asked:
                if isinstance(rule, rules.ExpireTokens):
                    self._sandbox.accounts.expire_access(rule.user)
            faults.arm(rule for rule in asked if not isinstance(rule, rules.ExpireTokens))
        elif request.method == "DELETE":
            faults.clear()
        shown = [
            {
                **armed.rule.model_dump(mode="json", exclude_defaults=True),
                "matched": armed.matched,
                "fired": armed.fired,
            }
            for armed in faults.armed
        ]
        return response({"faults": shown})

    async def resources(self, request: Request) -> Response:
        """What is stored, every version. Filters: `user`, `version`, `type`, `id`; `bytes=1`."""
        query = request.query_params
        with_bytes = query.get("bytes") == "1"
        if with_bytes and not self._sandbox.config.show_bytes:
            return response({"error": "Start the sandbox with --show-bytes to see records"}, 403)
        listed = [
            self._resource(key, resource, with_bytes=with_bytes)
            for key, shelf in self._sandbox.store.shelves()
            if self._selected(key, dict(query))
            for resource in shelf.resources.values()
            if query.get("id") in (None, resource.id)
        ]
        return response({"resources": listed})

    async def counts(self, request: Request) -> Response:
        """Resources, versions and duplicates, by user, FHIR version and type, and in total."""
        rows = []
        total: Counter[str] = Counter()
        for key, shelf in self._sandbox.store.shelves():
            if not self._selected(key, dict(request.query_params)):
                continue
            versions = [one for each in shelf.resources.values() for one in each.versions]
            copies = Counter(version.copy for version in versions)
            numbers = {
                "resources": len(shelf.resources),
                "versions": len(versions),
                "duplicate_resources": copies["resource"],
                "duplicate_versions": copies["version"],
                "duplicates": copies["resource"] + copies["version"],
            }
            total.update(numbers)
            rows.append({**self._named(key), **numbers})
        names = ("resources", "versions", "duplicate_resources", "duplicate_versions", "duplicates")
        return response({"total": {name: total[name] for name in names}, "by": rows})

    async def requests(self, request: Request) -> Response:
        """The log, oldest first. `after` gives what came after that number; `api` one part."""
        query = request.query_params
        after = query.get("after", "0")
        if not after.isdecimal():
            return response({"error": "after must be a request number"}, 400)
        shown = [
            entry.as_json()
            for entry in self._sandbox.log
            if entry.number > int(after) and query.get("api") in (None, entry.api)
        ]
        return response({"requests": shown})

    async def grants(self, request: Request) -> Response:
        """A grant as if the person had consented just now; creates the user if there is none."""
        try:
            app_user_id = orjson.loads(await request.body())["app_user_id"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            app_user_id = None
        if not isinstance(app_user_id, str) or not app_user_id:
            return response({"error": 'Send {"app_user_id": "..."}'}, 400)
        accounts = self._sandbox.accounts
        account = accounts.by_app_id(app_user_id) or accounts.create(app_user_id)
        if not account.active:
            accounts.activate(account, active=True)
        self._sandbox.faults.consent_given(account)
        pair = accounts.issue_tokens(account.oneup_user_id)
        return response({"oneup_user_id": account.oneup_user_id, **token_body(pair)})

    async def reset(self, _: Request) -> Response:
        """Forget everything."""
        self._sandbox.reset()
        return response({"reset": True})

    def _selected(self, key: ShelfKey, query: dict[str, str]) -> bool:
        user, version, resource_type = key
        account = self._sandbox.accounts.by_oneup_id(user)
        return (
            ("user" not in query or bool(account and account.is_called(query["user"])))
            and query.get("version", version) == version
            and query.get("type", resource_type) == resource_type
        )

    def _named(self, key: ShelfKey) -> dict[str, Any]:
        user, version, resource_type = key
        account = self._sandbox.accounts.by_oneup_id(user)
        return {
            "user": user,
            "app_user_id": account.app_user_id if account else None,
            "version": version,
            "type": resource_type,
        }

    def _resource(
        self, key: ShelfKey, resource: StoredResource, *, with_bytes: bool
    ) -> dict[str, Any]:
        versions = []
        for version in resource.versions:
            shown = {
                "version_id": version.version_id,
                "last_updated": version.last_updated.isoformat(),
                "interaction": version.interaction,
                "request": version.request,
                "size": len(version.received),
                "sha256": version.sha256,
                "content_sha256": version.content_sha256,
                "copy": version.copy,
                "deleted": version.deleted,
            }
            if with_bytes:
                shown["bytes"] = base64.b64encode(version.received).decode()
            versions.append(shown)
        return {**self._named(key), "id": resource.id, "versions": versions}
