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
from lifecycle.huey.results import ChordResult, Result, ResultGroup
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
from lifecycle.huey.workflows import chord, group

__all__ = [
    "SKIPPED", "BlackHoleHuey", "CancelExecution", "ChordResult", "ConfigurationError", "CySqliteHuey", "Error",
    "FileHuey", "Huey", "MemoryHuey", "PeriodicTask", "PostgresHuey", "PriorityRedisExpireHuey",
    "PriorityRedisHuey", "RateLimit", "RateLimitExceeded", "RedisExpireHuey", "RedisHuey", "Result",
    "ResultGroup", "ResultTimeout", "RetryTask", "SqliteHuey", "Task", "TaskException", "TaskLock",
    "TaskLockedException", "TaskTimeout", "TaskWrapper", "chord", "crontab", "group",
]  # fmt: skip
