"""The Celery queues and tasks by name: what the bell rings and the workers answer to."""

UPLOADS = "uploads"  # single records: somebody may be looking at the screen
BULK = "bulk"  # batches: a first sync of thousands must not delay one record
CONTROL = "control"  # sweeping, so that it never waits behind deliveries

DELIVER = "uplift.deliver"
SWEEP = "uplift.sweep"
RETAIN = "uplift.retain"

MAX_MESSAGE_IDS = 100  # ids in one message: Celery's cost a message is paid once for them all
