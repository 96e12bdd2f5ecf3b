"""PostgreSQL and Redis for a machine that has neither, with their data in one folder.

`server` is what both share: `lock` guards the folder. `postgres` and `redis` are the two servers;
`account` and `programs` are for root, who runs PostgreSQL under another account.
"""

from uplift.cli.local.embedded.lock import FolderInUse
from uplift.cli.local.embedded.postgres import EmbeddedPostgres
from uplift.cli.local.embedded.redis import EmbeddedRedis
from uplift.cli.local.embedded.server import ServerFailed

__all__ = ["EmbeddedPostgres", "EmbeddedRedis", "FolderInUse", "ServerFailed"]
