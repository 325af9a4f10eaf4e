"""What somebody may do by hand to a task that is stored on a server."""

from support import postgres, redis_server

from lifecycle.storage.redis.storage import RedisStorage


def overwrite(storage, task_id, field, data):
    """Put something else into a field of a task's row."""
    (redis_server if isinstance(storage, RedisStorage) else postgres).overwrite(storage, task_id, field, data)
