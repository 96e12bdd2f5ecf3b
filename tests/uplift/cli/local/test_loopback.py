"""`uplift demo` and `uplift up` ask no proxy about servers on this machine."""

import ast
from pathlib import Path

import uplift.cli.local

REQUESTS = ("httpx.get", "httpx.post", "httpx.put", "httpx.request", "httpx.Client")


def test_every_request_to_a_server_of_ours_leaves_the_environment_aside() -> None:
    calls = [
        call
        for file in Path(uplift.cli.local.__file__).parent.rglob("*.py")
        for call in ast.walk(ast.parse(file.read_text()))
        if isinstance(call, ast.Call) and ast.unparse(call.func) in REQUESTS
    ]
    assert len(calls) >= 3
    for call in calls:
        given = {each.arg: ast.unparse(each.value) for each in call.keywords}
        assert given.get("trust_env") == "False", ast.unparse(call)
