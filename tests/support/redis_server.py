"""A Redis server for the tests: where it is, and one of their own that they may do anything to."""

import functools
import itertools
import os
import shutil
import socket
import subprocess
import uuid
from contextlib import closing, contextmanager, suppress
from urllib.parse import urlencode, urlsplit

import pytest
import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from lifecycle.storage import open_storage

SERVER = os.environ.get("LIFECYCLE_TEST_REDIS", "redis://127.0.0.1:6379/0")
_run = uuid.uuid4().hex[:8]
_numbers = itertools.count()


@functools.cache
def why_not():
    """Why there is no server, if there is none."""
    try:
        with connected(SERVER) as db:
            db.ping()
    except redis.RedisError as error:
        return f"no Redis at $LIFECYCLE_TEST_REDIS: {error}"
    return None


def required():
    """Skip what needs the server if it is not there; on CI it has to be there."""
    if reason := why_not():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


@contextmanager
def connected(url, **options):
    """A connection to the server, for commands that are typed by hand."""
    with closing(redis.Redis.from_url(url, **options)) as db:
        yield db


def a_prefix():
    """Of keys, that nobody has used."""
    return f"test-{_run}-{next(_numbers)}"


def keys(db, prefix):
    """All keys that begin so."""
    return list(db.scan_iter(match=f"{{{prefix}:*", count=5000))


def clear_away(prefix=f"test-{_run}-*"):
    """Delete what the tests of this run have left on the server."""
    if why_not() is None:
        with connected(SERVER) as db:
            for key in db.scan_iter(match=f"{{{prefix}:*", count=5000):
                db.unlink(key)


def told_redis(prefix=None, url=SERVER, **options):
    """The URL of an empty store, with options."""
    options = {"prefix": prefix or a_prefix(), "patience": "30"} | options
    return urlsplit(url)._replace(query=urlencode(options)).geturl()


def opened(prefix, queue="default", **options):
    """A store on the server."""
    return open_storage(told_redis(prefix, **options), queue)


def _a_port():
    """One that nobody listens to, nor to the one that a node of a cluster has besides: 10,000 higher."""
    while True:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            if (port := free.getsockname()[1]) < 55_000:
                return port


class Private:
    """A server of the test's own, which can be restarted."""

    def __init__(self, folder, *options):
        required()
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)("no redis-server to start one of our own")
        self.port = _a_port()
        folder.mkdir(exist_ok=True)
        self._command = [
            program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "",
            "--appendonly", "yes", "--appendfsync", "always", *options,
        ]  # fmt: skip
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process = None

    def start(self):
        """Start it, and wait for it."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        patient = Retry(ConstantBackoff(0.02), 1500)
        again = [redis.exceptions.BusyLoadingError]
        with connected(self.url, retry=patient, retry_on_error=again) as db, suppress(redis.AuthenticationError):
            db.ping()
        return self

    def kill(self):
        """End it, as a power cut would."""
        self._process.kill()
        self._process.wait()

    def restart(self):
        """The same, and start it anew on what it had written."""
        self.kill()
        self.start()


@contextmanager
def a_server(folder, *options):
    """A server of one's own."""
    server = Private(folder, *options).start()
    try:
        yield server
    finally:
        server.kill()


def overwrite(storage, task_id, field, data):
    """Change a task's hash by hand."""
    with connected(SERVER) as db:
        db.hset(f"{storage._server.prefix}:task:{task_id}", field, data)
