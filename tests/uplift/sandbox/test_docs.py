import json
import re
from pathlib import Path
from typing import get_args

import httpx
import pytest

from uplift.sandbox import rules
from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.testing import SandboxServer

PAGE = (Path(__file__).parents[3] / "docs" / "sandbox.md").read_text()
EXAMPLES = re.findall(r"[`'](\[\{\"kind\".*?\])[`']", PAGE)


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_of_the_page_is_a_list_of_rules(sandbox: SandboxServer, example: str) -> None:
    url = f"{sandbox.url}/_sandbox/faults"
    response = httpx.put(url, content=example, headers=sandbox.headers, trust_env=False)
    assert response.status_code == 200, response.text


def test_every_kind_of_fault_has_an_example() -> None:
    kinds = {
        get_args(model.model_fields["kind"].annotation)[0]
        for model in (*get_args(rules.LastingRule), rules.ExpireTokens)
    }
    assert kinds == {rule["kind"] for example in EXAMPLES for rule in json.loads(example)}


def test_every_choice_in_brackets_is_a_field() -> None:
    table = PAGE.partition("## What it assumes")[2]
    named = {
        name for group in re.findall(r"\[(`.*?`)\]", table) for name in re.findall("`(.*?)`", group)
    }
    assert named
    assert named <= set(SandboxConfig.__dataclass_fields__)
