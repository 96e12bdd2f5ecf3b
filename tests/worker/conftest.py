"""`uplift.worker.app` reads its settings when it is imported, as Celery imports it."""

import os

os.environ.setdefault("UPLIFT_REDIS_URL", "redis://127.0.0.1:1/0")
