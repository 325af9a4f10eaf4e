"""`lifecycle.huey` in the place of the package `huey`, for Huey's own tests; its store is that of the run."""

import os
import shutil
import sys
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from time import monotonic
from types import ModuleType

import lifecycle.huey.api
import lifecycle.huey.consumer
from lifecycle.huey import stores
from lifecycle.huey.queue import Huey

URL = os.environ.get("HUEY_SUITE_URL", "memory://")
"""The store of all queues; each queue begins empty."""
FILES = Path(tempfile.mkdtemp(prefix="huey-suite-"))
PARTS = ("api", "constants", "exceptions", "serializer", "signals", "utils", "contrib.asyncio")
"""Modules of Huey that `lifecycle.huey` has, too."""
INSIDES = (
    "consumer", "consumer_options", "registry", "storage", "contrib.helpers",
    "contrib.mini", "contrib.sql_huey", "contrib.stats", "contrib.djhuey", "contrib.django_tasks",
)  # fmt: skip
"""Modules of Huey's machinery, and its contributed modules."""

OF_STORES = {
    "blocking", "connection_pool", "expire_time", "filename", "fsync", "host", "levels", "notify_result",
    "notify_result_ttl", "path", "port", "read_timeout", "timeout", "url", "use_thread_lock",
}  # fmt: skip
"""Options of a store, which the run has chosen."""

opened = []
"""The queues that the running test has made."""


class Inside(AssertionError):
    """A test asks for a part of Huey's machinery."""


def inside(module, name):
    """Return a class in the place of one of Huey's machinery: any use raises `Inside`."""

    class Part(type):
        def __getattr__(cls, attribute):
            raise Inside(f"huey.{module}.{name}")

        def __call__(cls, *args, **kwargs):
            raise Inside(f"huey.{module}.{name}")

    return Part(name, (), {})


class OnRunsStore(Huey):
    """A queue on the store of the run."""

    def __init__(self, name="huey", *args, **options):
        if "storage_class" in options:
            raise Inside("Huey(storage_class=…)")
        for option in OF_STORES & options.keys():
            del options[option]
        super().__init__(name, *args, url=URL, **options)
        opened.append(self)
        if "memory" not in URL:
            self.queue.flush()

    def create_consumer(self, **options):
        return Consumer(self, **options)

    @property
    def storage(self):
        return Storage(self)

    @property
    def _registry(self):
        return Registry()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        raise Inside(f"Huey.{name}")


class Registry:
    """In the place of Huey's registry: tests may hold it."""

    def __getattr__(self, name):
        raise Inside(f"registry.{name}")


class Storage:
    """In the place of Huey's storage: what empties it; all else is machinery."""

    def __init__(self, huey):
        self.__dict__["huey"] = huey

    def flush_all(self):
        self.huey.flush()

    def flush_schedule(self):
        self.huey.read_schedule(datetime(9999, 1, 1, tzinfo=UTC))

    def __getattr__(self, name):
        raise Inside(f"storage.{name}")

    def __setattr__(self, name, value):
        raise Inside(f"storage.{name}")


class Consumer(lifecycle.huey.consumer.Consumer):
    """A consumer; tests may let a worker or the scheduler make single steps, and all else is machinery."""

    @property
    def worker_threads(self):
        return [(WorkerSteps(self.huey), None)]

    def _create_scheduler(self):
        return Scheduler(self.huey)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        raise Inside(f"Consumer.{name}")


class WorkerSteps:
    """The steps of a worker: each takes a task, and executes it."""

    def __init__(self, huey):
        self.huey = huey

    def loop(self, now=None):
        self.huey.execute(self.huey.dequeue(), now)

    def __getattr__(self, name):
        raise Inside(f"worker.{name}")


class Scheduler:
    """The steps of Huey's scheduler: each puts the tasks that are due into the queue."""

    _next_periodic = 0.0

    def __init__(self, huey):
        self.huey = huey

    def loop(self, now=None):
        for task in self.huey.read_schedule(now):
            self.huey.enqueue(task)
        if self._next_periodic <= monotonic():
            self._next_periodic = monotonic() + 60
            for task in self.huey.read_periodic(now):
                with suppress(ValueError):  # that a test makes
                    self.huey.enqueue(task)


def install(tests):
    """Put the modules in place; `tests`: the folder of Huey's own tests."""

    def module(name, **names):
        made = sys.modules[name] = ModuleType(name)
        vars(made).update(names)
        made.__path__ = []
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, made)

        def missing(attribute):
            if attribute.startswith("__"):
                raise AttributeError(attribute)
            return inside(name.removeprefix("huey."), attribute)

        made.__getattr__ = missing

    own = {name: type(name, (OnRunsStore,), {}) for name in stores.__all__} | {"Huey": OnRunsStore}
    module("huey", **public(lifecycle.huey) | own)
    module("huey.contrib")
    for part in PARTS:
        names = public(import_module(f"lifecycle.huey.{part}"))
        module(
            f"huey.{part}",
            **names | (own if part == "api" else {}),
            **({"__all__": list(names)} if part == "signals" else {}),
        )
    for part in INSIDES:
        module(f"huey.{part}", **{"Consumer": Consumer, "Scheduler": Scheduler} if part == "consumer" else {})
    sys.modules["huey.storage"].cysqlite = None
    module("huey.tests")
    sys.modules["huey.tests"].__path__ = [str(tests)]


class Any:
    """Equal to anything, in the place of a number that means something else here."""

    def __eq__(self, other):
        return True

    def __ne__(self, other):
        return False

    __hash__ = None


def hide(difference):
    """Hide a difference from the tests."""
    if difference == "result_count":
        OnRunsStore.result_count = lambda self: Any()
    elif difference == "priority":
        lifecycle.huey.Task.priority = property(lambda task: Any() if not task.inner.priority else task.inner.priority)
    else:
        raise ValueError(difference)


def public(module):
    """Return the public names of a module."""
    return {name: getattr(module, name) for name in module.__all__}


def clean():
    """Remove the files of the run."""
    shutil.rmtree(FILES, ignore_errors=True)
