"""PostgreSQL and Redis for a machine that has neither: started, kept in one folder, stopped."""

from uplift.cli.local.embedded.lock import FolderInUse
from uplift.cli.local.embedded.postgres import EmbeddedPostgres
from uplift.cli.local.embedded.redis import EmbeddedRedis
from uplift.cli.local.embedded.server import ServerFailed

__all__ = ["EmbeddedPostgres", "EmbeddedRedis", "FolderInUse", "ServerFailed"]
