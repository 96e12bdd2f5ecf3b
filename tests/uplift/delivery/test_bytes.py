"""What reaches 1upHealth is, byte for byte, what was submitted."""

import pytest

from tests import factories
from tests.uplift.fhir.published import examples, needs_examples
from uplift.fhir.types import ONEUP_TYPES
from uplift.fhir.versions import FhirVersion
from uplift.intake.labels import Labels
from uplift.intake.submission import parse
from uplift.ledger import uploads
from uplift.lifecycle import State
from uplift.queues import UPLOADS
from uplift.sandbox.testing import SandboxServer
from uplift.wiring import Relay


async def relayed(relay: Relay, upstream: SandboxServer, bodies: list[bytes], version: str) -> None:
    """Submit the bodies, deliver them, and compare."""
    await factories.user(relay)
    ids = []
    for number, body in enumerate(bodies):
        labels = Labels(fhir_version=version, source="hospital", record_id=str(number))
        ids.append((await relay.acceptor.accept("alice", parse(body, labels))).upload.id)
    await relay.deliverer.deliver(UPLOADS)
    async with relay.database.transaction() as connection:
        rows = await uploads.get_uploads(connection, ids)
    assert {row.state for row in rows.values()} == {State.DELIVERED}
    assert sorted(upstream.stored_bytes()) == sorted(bodies)


@needs_examples
@pytest.mark.parametrize("version", list(FhirVersion))
async def test_every_example_of_hl7_arrives_unchanged(
    relay: Relay, upstream: SandboxServer, version: FhirVersion
) -> None:
    published = [
        body
        for name, body in examples(version).items()
        if name.partition("-")[0] in ONEUP_TYPES[version]
    ]
    assert len(published) > 150
    await relayed(relay, upstream, published, version)


def observation(number: int, rest: str) -> bytes:
    text = (
        f'{{"resourceType":"Observation","id":"odd-{number}","status":"final",'
        f'"code":{{"text":"odd"}},{rest}}}'
    )
    return text.encode()


ODD = {
    "trailing zeros of a decimal": '"valueQuantity":{"value":0.40}',
    "an exponent": '"valueQuantity":{"value":1.50e-3}',
    "a capital exponent with a sign": '"valueQuantity":{"value":2E+2}',
    "more digits than a double has": '"valueQuantity":{"value":3.141592653589793238462643383279}',
    "a negative zero": '"valueQuantity":{"value":-0.0}',
    "an integer that no double holds": '"valueQuantity":{"value":9007199254740993}',
    "an instant with a zone": '"issued":"2020-02-29T12:00:00.715+05:30"',
    "an instant with nine digits of a second": '"issued":"2020-02-29T12:00:00.123456789Z"',
    "a year alone": '"effectiveDateTime":"1999"',
    "a month": '"effectiveDateTime":"1999-12"',
    "letters beyond ASCII": '"valueString":"Größe Ωμέγα 漢字"',
    "letters beyond the first plane": '"valueString":"🫁 𠮷"',
    "escapes of what needs none": '"valueString":"\\u0041\\/\\u00e9"',
    "a pair of surrogates": '"valueString":"\\ud83e\\udec1"',
    "combining marks": '"valueString":"e\\u0301 \\u0065\\u0301"',
    "a right-to-left mark": '"valueString":"\\u200f\\u0627"',
    "white space all over": '\n\t "valueString" :\r\n  "x"  ',
    "a line separator": '"valueString":"a\\u2028b"',
}


async def test_every_odd_form_arrives_unchanged(relay: Relay, upstream: SandboxServer) -> None:
    bodies = [observation(number, rest) for number, rest in enumerate(ODD.values())]
    await relayed(relay, upstream, bodies, "R4")


async def test_a_resource_leaves_its_envelope_unchanged(
    relay: Relay, upstream: SandboxServer
) -> None:
    await factories.user(relay)
    body = observation(1, '\n "valueQuantity" : {"value": 1.50e-3 , "unit":"\\u00b5g" }')
    envelope = b'{"recordId":"1", "fhirVersion":"R4" ,"resource" : ' + body + b' , "source":"s"}'
    await relay.acceptor.accept("alice", parse(envelope, Labels()))
    await relay.deliverer.deliver(UPLOADS)
    assert upstream.stored_bytes() == [body]


@pytest.mark.parametrize("megabytes", [1, 7])
async def test_an_attachment_of_megabytes_arrives_unchanged(
    relay: Relay, upstream: SandboxServer, megabytes: int
) -> None:
    data = "QUJD" * (megabytes * 1024 * 1024 // 4)
    body = (
        '{"resourceType":"DocumentReference","id":"note","status":"current",'
        f'"content":[{{"attachment":{{"contentType":"text/plain","data":"{data}"}}}}]}}'
    ).encode()
    await relayed(relay, upstream, [body], "R4")
