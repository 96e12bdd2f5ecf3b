"""Uses a client that openapi-python-client generated. Its package is `generated`.

Arguments: the API's address, a key, a user, and a folder with R4.json, DSTU2.json, batch.ndjson.
Prints what it saw, as JSON.
"""

import json
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

from generated import AuthenticatedClient
from generated.api.batches import list_batch_lines, submit_batch
from generated.api.reading_back import read_fhir
from generated.api.uploads import get_upload, list_uploads, submit_upload
from generated.models import Envelope, Resource
from generated.types import File

url, key, user, folder = sys.argv[1:]
records = Path(folder)
client = AuthenticatedClient(base_url=url, token=key, raise_on_unexpected_status=True, timeout=60)


def wait(upload_id: Any) -> str:
    while True:
        status = get_upload.sync(upload_id, client=client, wait=30.0)
        if status.final:
            return str(status.status)


read: dict[str, Any] = {}
statuses = []
for version in ("R4", "DSTU2"):
    resource = json.loads((records / f"{version}.json").read_text())
    if version == "R4":
        envelope = Envelope(Resource.from_dict(resource), user=user, fhir_version=version)
        upload = submit_upload.sync(client=client, body=envelope, idempotency_key="python")
    else:
        upload = submit_upload.sync(
            client=client, body=Resource.from_dict(resource), user=user, fhir_version=version
        )
    statuses.append(wait(upload.id))
    found = read_fhir.sync(user, version, resource["resourceType"], resource["id"], client=client)
    read[version] = found.to_dict()

lines = File(payload=BytesIO((records / "batch.ndjson").read_bytes()))
batch = submit_batch.sync(client=client, body=lines, user=user, fhir_version="R4")
statuses += [wait(line.id) for line in batch.lines]
listed = list_batch_lines.sync(batch.id, client=client).lines

pages, after = [], None
while True:
    given = {"after": after} if after else {}
    page = list_uploads.sync(client=client, user=user, limit=2, **given)
    pages.append(len(page.uploads))
    if page.next_ is None:
        break
    after = page.uploads[-1].id

print(
    json.dumps({"read": read, "statuses": statuses, "pages": pages, "lines": len(listed)}),
)
