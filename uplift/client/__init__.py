"""A client for Uplift's API: `Uplift` for plain code and `AsyncUplift` for asyncio.

This folder is also a distribution of its own, `uplift-client` (clients/python). So it imports
nothing else of Uplift, and its own files by relative names: there the package is `uplift_client`.

`calls` has one function for each operation; `exchange` decides what to send, when to repeat it and
what the answer means, without sending anything; `blocking` and `asynchronous` send.
"""

from .asynchronous import AsyncUplift
from .blocking import Uplift
from .errors import (
    CallError,
    Conflict,
    InvalidRequest,
    KeyReused,
    NoAnswer,
    NotAllowed,
    NotAuthenticated,
    NotFinal,
    NotFound,
    NotUplift,
    ProblemAnswer,
    TryLater,
)
from .models import (
    Attempt,
    Batch,
    BatchLine,
    BatchStatus,
    DeviceToken,
    Erasure,
    Issue,
    Issues,
    LineProblem,
    ListedDeviceToken,
    Pause,
    Receipt,
    RedriveReport,
    TryNowReport,
    Upload,
    User,
    UserSummary,
)
from .records import Record, RecordResult

__version__ = "0.2.0"

__all__ = [
    "AsyncUplift",
    "Attempt",
    "Batch",
    "BatchLine",
    "BatchStatus",
    "CallError",
    "Conflict",
    "DeviceToken",
    "Erasure",
    "InvalidRequest",
    "Issue",
    "Issues",
    "KeyReused",
    "LineProblem",
    "ListedDeviceToken",
    "NoAnswer",
    "NotAllowed",
    "NotAuthenticated",
    "NotFinal",
    "NotFound",
    "NotUplift",
    "Pause",
    "ProblemAnswer",
    "Receipt",
    "Record",
    "RecordResult",
    "RedriveReport",
    "TryLater",
    "TryNowReport",
    "Uplift",
    "Upload",
    "User",
    "UserSummary",
]
