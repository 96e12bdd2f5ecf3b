"""Pages through all Observations with SMART's Python client, and prints them as a JSON array.

The test runs it with the Python of `make tools`.
"""

import json
import sys

from fhirclient import client  # type: ignore[import-not-found]
from fhirclient.models.observation import Observation  # type: ignore[import-not-found]


def main() -> None:
    """Read from the address in the first argument, with the credential in the second."""
    base, token = sys.argv[1:]
    smart = client.FHIRClient(settings={"app_id": "uplift-test", "api_base": base})
    smart.prepare()  # reads metadata
    smart.server.session.headers["Authorization"] = f"Bearer {token}"
    found = Observation.where({"_count": "5"}).perform_resources_iter(smart.server)
    print(json.dumps([each.as_json() for each in found]))
    missing = Observation.where({"_count": "5", "_id": "nobody-has-it"})
    if list(missing.perform_resources_iter(smart.server)):
        sys.exit("Found what is not there.")


main()
