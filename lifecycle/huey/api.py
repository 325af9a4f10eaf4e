"""The names of the module `huey.api`."""

from lifecycle.huey.crontab import crontab
from lifecycle.huey.exceptions import (
    CancelExecution,
    ConfigurationError,
    RateLimitExceeded,
    ResultTimeout,
    RetryTask,
    TaskException,
    TaskLockedException,
    TaskTimeout,
)
from lifecycle.huey.functions import TaskWrapper
from lifecycle.huey.locks import TaskLock
from lifecycle.huey.queue import Huey
from lifecycle.huey.rate_limits import RateLimit
from lifecycle.huey.results import Result, ResultGroup
from lifecycle.huey.stores import (
    BlackHoleHuey,
    CySqliteHuey,
    FileHuey,
    MemoryHuey,
    PostgresHuey,
    PriorityRedisExpireHuey,
    PriorityRedisHuey,
    RedisExpireHuey,
    RedisHuey,
    SqliteHuey,
)
from lifecycle.huey.tasks import PeriodicTask, Task
from lifecycle.huey.utils import SKIPPED, Error

__all__ = [
    "SKIPPED", "BlackHoleHuey", "CancelExecution", "ConfigurationError", "CySqliteHuey", "Error", "FileHuey", "Huey",
    "MemoryHuey", "PeriodicTask", "PostgresHuey", "PriorityRedisExpireHuey", "PriorityRedisHuey", "RateLimit",
    "RateLimitExceeded", "RedisExpireHuey", "RedisHuey", "Result", "ResultGroup", "ResultTimeout", "RetryTask",
    "SqliteHuey", "Task", "TaskException", "TaskLock", "TaskLockedException", "TaskTimeout", "TaskWrapper", "crontab",
]  # fmt: skip
