"""The commands and settings of each side, chosen by the files that its tree contains.

The first word of a command is a program of the side's own environment. Everything else that the
benchmark uses is the same in both: HTTP paths, `uploads.state`, and the settings in `side`.
"""

from dataclasses import dataclass
from pathlib import Path

MIGRATE = ("uplift", "migrate")
MASTER_KEY = ("uplift", "keys", "master")
API_KEY = ("uplift", "keys", "add", "bench")

_CELERY = ("celery", "-A", "worker.app", "worker")
_THREADS = ("-c", "4", "-P", "threads", "--without-mingle", "--without-gossip")


@dataclass(frozen=True, slots=True)
class Layout:
    """How one kind of tree is started. `file` is in no other kind of tree."""

    file: str
    api: tuple[str, ...]
    worker: tuple[str, ...]  # of the queue `uploads`
    bulk: tuple[str, ...]  # of the queue `bulk`
    beat: tuple[str, ...]
    max_in_flight: str
    admin_port: str


LAYOUTS = (
    Layout(  # up to commit a801074
        file="relay/wiring.py",
        api=("python", "-m", "api"),
        worker=(*_CELERY, "-Q", "uploads", "-n", "uploads@%h", *_THREADS),
        bulk=(*_CELERY, "-Q", "bulk", "-n", "bulk@%h", *_THREADS),
        beat=(*_CELERY, "-B", "-s", "schedule", "-Q", "control", "-n", "control@%h", *_THREADS),
        max_in_flight="UPLIFT_SEND_SLOTS",
        admin_port="UPLIFT_METRICS_PORT",
    ),
    Layout(  # today
        file="uplift/wiring.py",
        api=("uplift", "api"),
        worker=("uplift", "worker"),
        bulk=("uplift", "bulk"),
        beat=("uplift", "beat"),
        max_in_flight="UPLIFT_MAX_IN_FLIGHT",
        admin_port="UPLIFT_ADMIN_PORT",
    ),
)


def layout_of(tree: Path) -> Layout:
    """The layout of a tree. Raises ValueError for an unknown one."""
    for layout in LAYOUTS:
        if (tree / layout.file).exists():
            return layout
    raise ValueError(f"{tree} has a layout that bench/against/layouts.py does not know.")
