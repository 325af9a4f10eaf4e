"""Huey's public names and behavior, on top of `TaskQueue`: a Huey program's import is all that changes.

Write ``from lifecycle.huey import SqliteHuey`` in place of ``from huey import SqliteHuey``. The page "Coming from Huey"
has the differences, and the reason of each.
"""

from lifecycle.huey import exceptions, signals
from lifecycle.huey.crontab import crontab
from lifecycle.huey.exceptions import CancelExecution, HueyException, RetryTask
from lifecycle.huey.functions import TaskWrapper
from lifecycle.huey.queue import Huey
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
    "SKIPPED",
    "BlackHoleHuey",
    "CancelExecution",
    "ChordResult",
    "CySqliteHuey",
    "Error",
    "FileHuey",
    "Huey",
    "HueyException",
    "MemoryHuey",
    "PeriodicTask",
    "PostgresHuey",
    "PriorityRedisExpireHuey",
    "PriorityRedisHuey",
    "RedisExpireHuey",
    "RedisHuey",
    "Result",
    "ResultGroup",
    "RetryTask",
    "SqliteHuey",
    "Task",
    "TaskWrapper",
    "chord",
    "crontab",
    "exceptions",
    "group",
    "signals",
]  # fmt: skip
