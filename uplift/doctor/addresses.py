"""Has each destination the address that the ledger knows?"""

from collections.abc import Collection

from uplift.doctor.findings import Finding, fail, ok

PART = "destinations"


def judge_addresses(names: Collection[str], changed: Collection[str]) -> list[Finding]:
    """`changed` are those of the destinations that the ledger knows under another address."""
    if not changed:
        return [ok(PART, f"the addresses are those of the ledger: {', '.join(sorted(names))}")]
    return [
        fail(
            PART,
            f"{name} has another address than the ledger knows, so nothing is sent there",
            "If the server has what was delivered: `uplift destinations moved"
            f" {name} --same-data`. If it has nothing: `--empty` instead.",
        )
        for name in sorted(changed)
    ]
