"""`python -m chaos`: one run. Exit code 1 if an upload is lost, stuck, duplicated or unreported."""

import argparse
import shutil
import sys
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import get_args

from chaos.options import Options
from chaos.run import run
from uplift.cli.local.processes import interrupted_by_signals
from uplift.cli.local.system import Like


def main() -> int:
    """Read the command line, run, print the report."""
    default = Options()
    parser = argparse.ArgumentParser(
        prog="python -m chaos",
        description="Kills, freezes and misleads the real system while devices send uploads to it.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--uploads", type=int, default=default.uploads, help="uploads to send")
    add("--kills", type=int, default=default.kills, help="SIGKILLs to spread over the run")
    add("--kill-every", type=float, default=default.kill_every, help="seconds between two kills")
    add("--seed", type=int, default=default.seed, help="decides what happens when")
    add("--ids", choices=["kept", "assigned"], default=default.ids, help="who names resources")
    add("--like", choices=get_args(Like), default=default.like, help="which destination")
    bundles = ["none", "transaction", "batch"]
    add("--bundle", choices=bundles, default=default.bundle, help="of records, like hapi")
    add("--beyond", action="store_true", help="delays longer than settle and index_lag")
    add("--heavy", action="store_true", help="one person has nine tenths of all uploads")
    add("--no-restores", dest="restores", action="store_false", help="the ledger never goes back")
    add("--devices", type=int, default=default.devices, help="devices that send at once")
    add("--folder", type=Path, help="keeps logs and ledger; default: a new one, kept on failure")
    asked = vars(parser.parse_args())
    chosen_folder: Path | None = asked.pop("folder")
    options = Options(
        **{field.name: asked[field.name] for field in fields(Options) if field.name in asked}
    )
    folder = chosen_folder or Path(tempfile.mkdtemp(prefix="uplift-chaos-"))
    keep = chosen_folder is not None
    try:
        with interrupted_by_signals():
            result = run(options, folder, lambda line: print(line, flush=True))
        print("\n".join(result.report))
        keep = keep or not result.holds
        return 0 if result.holds else 1
    except KeyboardInterrupt:
        print("Stopped.")
        return 130
    except BaseException:
        keep = True
        raise
    finally:
        if keep:
            print(f"Logs and ledger: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
