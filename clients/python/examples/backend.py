"""The backend of an app: it keeps an outbox in SQLite, and Uplift delivers what is in it.

python backend.py add alice R4 record.json ...   The app brought these records.
python backend.py run                            Send them, and wait until each has ended.

It reads UPLIFT_API_URL, UPLIFT_API_KEY and, since the sandbox plays the person, its
UPLIFT_SANDBOX_URL and UPLIFT_SANDBOX_TOKEN.
"""

import os
import sqlite3
import sys
import time
from pathlib import Path

import httpx
import uplift_client as api

db = sqlite3.connect("outbox.db", isolation_level=None)
db.execute("CREATE TABLE IF NOT EXISTS outbox (key, person, version, body, upload, status)")


def authorise(uplift: api.Uplift, person: str) -> None:
    # Your app opens 1upHealth's page for consent, and gets tokens. Here the sandbox gives them.
    consent = os.environ["UPLIFT_SANDBOX_URL"] + "/_sandbox/grants"
    token = {"Authorization": f"Bearer {os.environ['UPLIFT_SANDBOX_TOKEN']}"}
    grant = httpx.post(consent, json={"app_user_id": person}, headers=token).json()
    known = ("access_token", "refresh_token", "expires_in")
    uplift.store_grant(person, **{name: grant[name] for name in known})


def step(uplift: api.Uplift, key: str, person: str, version: str, body: bytes, sent: str) -> None:
    try:
        if not sent:
            uplift.add_user(person)  # It may be repeated, and asks 1upHealth only if it has to.
            upload = uplift.submit(body, fhir_version=version, user=person, idempotency_key=key)
            db.execute("UPDATE outbox SET upload = ? WHERE key = ?", (upload.id, key))
        else:
            upload = uplift.wait_until_final(sent, seconds=2)
            db.execute("UPDATE outbox SET status = ? WHERE key = ?", (upload.status, key))
            print(person, upload.resource_type, upload.status, upload.reason or "")
    except api.NotFinal as later:
        if later.upload.status == "parked" and uplift.user(person).grant != "active":
            authorise(uplift, person)
    except api.Conflict as problem:  # 409. The other code, user_erased, passes by itself.
        if problem.code == "needs_authorization":
            authorise(uplift, person)
    except api.KeyReused:  # 422: another record went out under this key.
        db.execute("UPDATE outbox SET key = hex(randomblob(16)) WHERE key = ?", (key,))
    except api.InvalidRequest as problem:  # 400, 413: Uplift cannot accept this record.
        db.execute("UPDATE outbox SET status = ? WHERE key = ?", (problem.code, key))


if sys.argv[1] == "add":
    rows = [(*sys.argv[2:4], Path(file).read_bytes()) for file in sys.argv[4:]]
    db.executemany("INSERT INTO outbox VALUES (hex(randomblob(16)), ?, ?, ?, NULL, NULL)", rows)
    sys.exit()
DUE = "SELECT * FROM outbox WHERE status IS NULL ORDER BY random()"
with api.Uplift(os.environ["UPLIFT_API_URL"], os.environ["UPLIFT_API_KEY"], patience=0) as uplift:
    while row := db.execute(DUE).fetchone():
        try:
            step(uplift, *row[:5])
        except api.NotAuthenticated as problem:  # 401. The outbox keeps the records.
            sys.exit(f"{problem} `uplift keys add` makes a new key.")
        except (api.TryLater, api.NoAnswer) as problem:  # 429, 503: nothing was accepted.
            print(problem, file=sys.stderr)
            time.sleep(getattr(problem, "retry_after", None) or 5)
