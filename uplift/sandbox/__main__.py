"""`python -m uplift.sandbox`: a simulated 1upHealth on this machine."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from uplift.sandbox.config import SandboxConfig
from uplift.sandbox.server import LOOPBACK, serve


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and serve until interrupted. Returns the exit code."""
    default = SandboxConfig()
    parser = argparse.ArgumentParser(
        prog="python -m uplift.sandbox",
        description="A simulated 1upHealth, in memory.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default=LOOPBACK, help="address to listen on")
    add("--port", type=int, default=8090, help="port; 0 takes a free one")
    add("--ids", choices=["kept", "assigned"], default=default.ids, help="who names resources")
    add("--client-id", default=default.client_id, help="the application's client id")
    add(
        "--client-secret",
        default=os.environ.get("SANDBOX_CLIENT_SECRET", default.client_secret),
        help="the application's client secret; better by SANDBOX_CLIENT_SECRET",
    )
    add("--token-seconds", type=int, default=default.token_seconds, help="life of an access token")
    add(
        "--code-delay-seconds",
        type=float,
        default=default.code_delay_seconds,
        help="how long a fresh code is not yet valid",
    )
    add(
        "--quota-calls",
        type=int,
        default=default.quota_calls,
        help="user-management calls in one window",
    )
    add(
        "--quota-seconds",
        type=float,
        default=default.quota_seconds,
        help="length of that window",
    )
    add(
        "--index-lag-seconds",
        type=float,
        default=default.index_lag_seconds,
        help="how late searches see a write",
    )
    add("--create-status", type=int, default=default.create_status, help="status of a create")
    add(
        "--existing-user-status",
        type=int,
        choices=[200, 400],
        default=default.existing_user_status,
        help="status of creating a user who exists",
    )
    add(
        "--no-location",
        dest="location_headers",
        action="store_false",
        help="answer without Location and ETag",
    )
    add(
        "--update-creates",
        action="store_true",
        help="let an update of an unknown id create it",
    )
    chosen = vars(parser.parse_args(arguments))
    host, port = chosen.pop("host"), chosen.pop("port")
    try:
        serve(host, port, SandboxConfig(**chosen), ready=_say_where)
    except OSError as wrong:
        sys.stderr.write(f"Cannot listen on {host}:{port}: {wrong.strerror}. Try --port 0.\n")
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def _say_where(url: str) -> None:
    sys.stdout.write(f"Sandbox of 1upHealth on {url}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    # uvicorn raises a signal again once it has stopped; for a server SIGTERM is an ordinary end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    sys.exit(main())
