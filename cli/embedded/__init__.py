"""PostgreSQL and Redis for a machine that has neither: started, kept in one folder, stopped."""

from cli.embedded.lock import FolderInUse
from cli.embedded.postgres import EmbeddedPostgres
from cli.embedded.redis import EmbeddedRedis
from cli.embedded.server import ServerFailed

__all__ = ["EmbeddedPostgres", "EmbeddedRedis", "FolderInUse", "ServerFailed"]
