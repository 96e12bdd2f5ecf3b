"""`python -m storm`: one storm; exit code 1 if anything is lost, stuck, doubled or untold."""

import argparse
import shutil
import sys
import tempfile
from dataclasses import fields
from pathlib import Path

from chaos.run import blow
from chaos.terms import Terms
from uplift.cli.local.processes import interrupted_by_signals


def main() -> int:
    """Read the command line and run it."""
    default = Terms()
    parser = argparse.ArgumentParser(
        prog="python -m storm",
        description="Kills, freezes and misleads the real system while devices send to it.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--uploads", type=int, default=default.uploads, help="uploads to send")
    add("--kills", type=int, default=default.kills, help="SIGKILLs to spread over the storm")
    add("--kill-every", type=float, default=default.kill_every, help="seconds between them")
    add("--seed", type=int, default=default.seed, help="decides what happens when")
    add("--ids", choices=["kept", "assigned"], default=default.ids, help="who names resources")
    add("--beyond", action="store_true", help="delays beyond settle and index_lag")
    add("--devices", type=int, default=default.devices, help="devices that send at once")
    add("--folder", type=Path, help="for logs and ledger; kept. Else a new one, kept on failure")
    asked = vars(parser.parse_args())
    folder = asked.pop("folder")
    terms = Terms(
        **{field.name: asked[field.name] for field in fields(Terms) if field.name in asked}
    )
    place = folder or Path(tempfile.mkdtemp(prefix="uplift-storm-"))
    keeps = folder is not None
    try:
        with interrupted_by_signals():
            aftermath = blow(terms, place, lambda line: print(line, flush=True))
        print("\n".join(aftermath.report))
        keeps = keeps or not aftermath.holds
        return 0 if aftermath.holds else 1
    except KeyboardInterrupt:
        print("Stopped.")
        return 130
    except BaseException:
        keeps = True
        raise
    finally:
        if keeps:
            print(f"Logs and ledger: {place}")
        else:
            shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
