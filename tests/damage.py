"""What somebody may do by hand to a task that is stored on a server."""

import postgres
import redis_server

from lifecycle.storage.redis import RedisStorage


def overwrite(storage, task_id, field, data):
    """Put something else into a field of a task's row."""
    (redis_server if isinstance(storage, RedisStorage) else postgres).overwrite(storage, task_id, field, data)
