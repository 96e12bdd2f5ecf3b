"""Python's collector of cycles, as processes that serve for long need it."""

import gc

# Objects more than before, until Python looks for cycles. What is under way has thousands of them,
# and most of it has no cycles: with Python's own 700, the API spent a tenth of its time on that.
_COLLECT_AFTER = 50_000


def freeze_what_is_here() -> None:
    """Take what is here now for as long-lived as the process, and look for cycles less often.

    Collections that visit it would stop everything for a tenth of a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER)
