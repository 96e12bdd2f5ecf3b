"""A phone that sends records by itself, with a device token that its backend made.

python device_token.py send alice R4 record.json ...   On the phone.
python device_token.py sign-out alice                  On the backend, when alice signs out.

Between the two halves is your own API, where alice signs in. Only the backend has the API key.
It reads UPLIFT_API_URL, and on the backend UPLIFT_API_KEY.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from uplift_client import NotAuthenticated, NotFinal, Uplift, Upload

URL = os.environ["UPLIFT_API_URL"]
PHONE = "phone-2"  # Your own name for the device, and not the person's.
KEPT = Path("device-token")  # On a real phone, this is in the keychain.


def new_token(person: str) -> str:
    """On the backend, for whoever has signed in as this person."""
    with Uplift(URL, os.environ["UPLIFT_API_KEY"]) as uplift:
        uplift.add_user(person)
        return uplift.add_device_token(person, expires_in=3600, name=PHONE).token


def sign_out(person: str) -> None:
    """On the backend, when the person signs out or has lost the phone."""
    with Uplift(URL, os.environ["UPLIFT_API_KEY"]) as uplift:
        for token in uplift.device_tokens(person):
            if token.name == PHONE:
                uplift.revoke_device_token(person, token.id)


def on_phone(person: str, use: Callable[[Uplift], Upload]) -> Upload:
    """On the phone: calls Uplift with the token that it keeps, or else with a new one."""
    try:
        with Uplift(URL, KEPT.read_text()) as uplift:
            return use(uplift)
    except (FileNotFoundError, NotAuthenticated):  # 401: the token has ended, or was revoked.
        KEPT.touch(mode=0o600)
        KEPT.write_text(new_token(person))
        with Uplift(URL, KEPT.read_text()) as uplift:
            return use(uplift)


def send(person: str, version: str, file: str) -> Upload:
    body = Path(file).read_bytes()
    upload = on_phone(person, lambda uplift: uplift.submit(body, fhir_version=version))
    try:
        return on_phone(person, lambda uplift: uplift.wait_until_final(upload.id, seconds=60))
    except NotFinal as later:  # The phone can ask again tomorrow, or never: Uplift goes on.
        return later.upload


if sys.argv[1] == "sign-out":
    sign_out(sys.argv[2])
for file in sys.argv[4:]:
    print(file, send(sys.argv[2], sys.argv[3], file).status)
