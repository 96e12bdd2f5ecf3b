"""The names that a dispatch and the workers share: Celery's queues, and its one task."""

UPLOADS = "uploads"  # single records: a person may be waiting for the result
BULK = "bulk"  # batches: a first sync of thousands must not delay a single record

DELIVER = "uplift.deliver"

MAX_MESSAGE_IDS = 100  # ids in one message: they share Celery's cost of a message

SWEPT_KEY = "uplift:swept"
"""Redis has this key as long as sweeps end in time: doctor asks for it."""
