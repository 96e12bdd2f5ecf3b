"""The command line of the sandbox, which `uplift sandbox` runs."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.journal import UnreadableJournalError
from uplift.sandbox.server import LOOPBACK, serve
from uplift.sandbox.servers.assertions import write_account
from uplift.sandbox.servers.profile import Auth
from uplift.sandbox.servers.profiles import PROFILES


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the options and serve until SIGINT or SIGTERM. Returns the exit code."""
    host, port, config = read_options(arguments)

    def say_where(url: str) -> None:
        name = config.profile.title if config.profile else "1upHealth"
        if config.service_account is not None:
            write_account(config.service_account, f"{url}/oauth2/token")
        sys.stdout.write(f"Sandbox of {name} on {url}\n")
        if not os.environ.get("SANDBOX_CONTROL_TOKEN"):
            sys.stdout.write(f"The token of {url}/_sandbox/ is {config.control_token}\n")
        sys.stdout.flush()

    # uvicorn raises a signal again once it has stopped; for a server SIGTERM is an ordinary end.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        serve(host, port, config, ready=say_where)
    except OSError as wrong:
        sys.stderr.write(f"Cannot listen on {host}:{port}: {wrong.strerror}. Try --port 0.\n")
        return 1
    except UnreadableJournalError as wrong:
        sys.stderr.write(f"{wrong}\n")
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def read_options(arguments: Sequence[str] | None = None) -> tuple[str, int, SandboxConfig]:
    """The address, the port and the choices that a command line asks for."""
    default = SandboxConfig()
    parser = argparse.ArgumentParser(
        prog="uplift sandbox",
        description="A simulated 1upHealth, or a server to be like.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default=LOOPBACK, help="address to listen on")
    add("--port", type=int, default=8090, help="port; 0 takes a free one")
    add(
        "--ids",
        choices=["kept", "assigned"],
        default=default.ids,
        help="kept: a new resource keeps the id it came with; assigned: the server gives one",
    )
    add(
        "--like",
        choices=["oneup-recorded", *PROFILES],
        default=default.like,
        help="a server to be like: oneup-recorded is 1upHealth as its recorded responses are (ids "
        "of its own, and additions); each other has a base for each of its FHIR versions",
    )
    add(
        "--auth",
        choices=get_args(Auth),
        default=default.auth,
        help="how to log in there: by client id and secret, by the secret as a bearer token, or by "
        "a token for them, for an assertion signed by a key of --jwks, or for one of "
        "--service-account; otherwise as such a server does",
    )
    add(
        "--jwks",
        type=Path,
        default=default.jwks,
        help="the client's public keys, as `uplift destinations jwks` prints them",
    )
    add(
        "--service-account",
        type=Path,
        default=default.service_account,
        help="the file of a Google service account; if it is not there, one is made",
    )
    add(
        "--state",
        dest="state_file",
        type=Path,
        default=default.state_file,
        help="keep users, tokens and resources in this file, sealed with SANDBOX_STATE_KEY",
    )
    add(
        "--show-bytes",
        action="store_true",
        help="let the control API show records as they came",
    )
    add("--client-id", default=default.client_id, help="the application's client id")
    add(
        "--client-secret",
        default=os.environ.get("SANDBOX_CLIENT_SECRET", default.client_secret),
        help="its client secret; better set SANDBOX_CLIENT_SECRET, which other users do not see",
    )
    add(
        "--token-seconds",
        type=int,
        default=default.token_seconds,
        help="how long an access token is valid",
    )
    add(
        "--code-delay-seconds",
        type=float,
        default=default.code_delay_seconds,
        help="how long a new authorization code is refused",
    )
    add(
        "--quota-calls",
        type=int,
        default=default.quota_calls,
        help="user-management calls allowed in one period",
    )
    add(
        "--quota-seconds",
        type=float,
        default=default.quota_seconds,
        help="length of that period in seconds",
    )
    add(
        "--index-lag-seconds",
        type=float,
        default=default.index_lag_seconds,
        help="how long a search does not see a new write",
    )
    add(
        "--create-status",
        type=int,
        default=default.create_status,
        help="status of the response to a create",
    )
    add(
        "--existing-user-status",
        type=int,
        choices=[200, 400],
        default=default.existing_user_status,
        help="status when a user is created who exists already",
    )
    add(
        "--no-location",
        dest="location_headers",
        action="store_false",
        help="send no Location and no ETag header",
    )
    add(
        "--update-creates",
        action="store_true",
        help="create the resource when an update names an unknown id",
    )
    chosen = vars(parser.parse_args(arguments))
    host, port = chosen.pop("host"), chosen.pop("port")
    chosen["state_key"] = os.environ.get("SANDBOX_STATE_KEY", "")
    token = os.environ.get("SANDBOX_CONTROL_TOKEN", "")
    if token:
        chosen["control_token"] = token
    config = SandboxConfig(**chosen)
    if (missing := _missing(config)) is not None:
        parser.error(missing)
    return host, port, config


def _missing(config: SandboxConfig) -> str | None:
    """What the login needs and the options do not have, or None."""
    if config.login == "private_key_jwt" and not (config.jwks and config.jwks.is_file()):
        return "this login needs --jwks FILE: what `uplift destinations jwks` prints"
    account = config.service_account
    if config.login == "jwt_bearer" and account is None:
        return "this login needs --service-account FILE"
    if account is not None and not account.parent.is_dir():
        return f"--service-account: there is no folder {account.parent}"
    return None
