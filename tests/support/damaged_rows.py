"""Damage to tasks that are stored on a server."""

from support import postgres, redis_server

from lifecycle.storage.redis.storage import RedisStorage


def overwrite(storage, task_id, field, data):
    """Overwrite a field of a stored task by hand."""
    (redis_server if isinstance(storage, RedisStorage) else postgres).overwrite(storage, task_id, field, data)
