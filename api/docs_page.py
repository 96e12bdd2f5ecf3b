"""The pages under `/docs`. Swagger UI comes from a wheel: a browser asks no other host."""

from importlib.resources import files

import orjson
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, Response

router = APIRouter(include_in_schema=False)

_FILES = files("fastapi_offline") / "static"
_ERRORS = files("uplift.api") / "errors.md"
_KEPT = {"Cache-Control": "public, max-age=86400"}

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Uplift: the API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
<script src="docs/swagger-ui-bundle.js" defer></script>
<script src="docs/start.js" defer></script>
</head>
<body><div id="docs"></div></body>
</html>
"""
_START = """SwaggerUIBundle({
  dom_id: "#docs", url: "openapi.json", deepLinking: true, validatorUrl: null,
});
"""
# Swagger UI writes style attributes and draws pictures from data: addresses.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@router.get("/openapi.json")
async def description(request: Request) -> Response:
    """The OpenAPI description of the API."""
    app: FastAPI = request.app
    if not hasattr(app.state, "description"):
        app.state.description = orjson.dumps(app.openapi())
    return Response(app.state.description, media_type="application/json")


@router.get("/docs")
async def page() -> Response:
    """The page, which reads /openapi.json and sends requests to this API only."""
    return HTMLResponse(
        _PAGE, headers={"Content-Security-Policy": _POLICY, "Referrer-Policy": "no-referrer"}
    )


@router.get("/docs/start.js")
async def start() -> Response:
    """What the page runs. It is a file, because the policy allows no script inside the page."""
    return Response(_START, media_type="text/javascript", headers=_KEPT)


@router.get("/docs/swagger-ui-bundle.js")
async def script() -> Response:
    """Swagger UI."""
    return FileResponse(
        str(_FILES / "swagger-ui-bundle.js"), media_type="text/javascript", headers=_KEPT
    )


@router.get("/docs/swagger-ui.css")
async def style() -> Response:
    """Swagger UI's style."""
    return FileResponse(str(_FILES / "swagger-ui.css"), media_type="text/css", headers=_KEPT)


@router.get("/docs/errors.md")
async def errors() -> Response:
    """Every code of a problem, a reason and a response, with what to do: `type` leads here."""
    return FileResponse(str(_ERRORS), media_type="text/plain; charset=utf-8", headers=_KEPT)
