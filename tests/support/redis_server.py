"""The Redis server of the tests, and private servers that a test may stop and configure."""

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
def unavailable_reason():
    """Return why the server cannot be reached; ``None`` if it can."""
    try:
        with connected(SERVER) as db:
            db.ping()
    except redis.RedisError as error:
        return f"no Redis at $LIFECYCLE_TEST_REDIS: {error}"
    return None


def require_server():
    """Skip the test if the server cannot be reached; on CI, fail."""
    if reason := unavailable_reason():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


@contextmanager
def connected(url, **options):
    """Connect to the server, for commands that are typed by hand."""
    with closing(redis.Redis.from_url(url, **options)) as db:
        yield db


def unused_prefix():
    """Return a prefix of keys that is not in use."""
    return f"test-{_run}-{next(_numbers)}"


def keys(db, prefix):
    """Return the keys with a prefix."""
    return list(db.scan_iter(match=f"{{{prefix}:*", count=5000))


def delete_test_keys(prefix=f"test-{_run}-*"):
    """Delete the keys that the tests of this run have left on the server."""
    if unavailable_reason() is None:
        with connected(SERVER) as db:
            for key in db.scan_iter(match=f"{{{prefix}:*", count=5000):
                db.unlink(key)


def redis_store_url(prefix=None, url=SERVER, **options):
    """Return the URL of an empty store, with options."""
    options = {"prefix": prefix or unused_prefix(), "patience": "30"} | options
    return urlsplit(url)._replace(query=urlencode(options)).geturl()


def open_store(prefix, queue="default", **options):
    """Return a store on the server."""
    return open_storage(redis_store_url(prefix, **options), queue)


def _free_port():
    """Return a free port; the second port of a node of a cluster is 10,000 higher."""
    while True:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            if (port := free.getsockname()[1]) < 55_000:
                return port


class PrivateServer:
    """A server for one test, which can be restarted."""

    def __init__(self, folder, *options):
        require_server()
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)("no redis-server to start one of our own")
        self.port = _free_port()
        folder.mkdir(exist_ok=True)
        self._command = [
            program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "",
            "--appendonly", "yes", "--appendfsync", "always", *options,
        ]  # fmt: skip
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process = None

    def start(self):
        """Start the server, and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        patient = Retry(ConstantBackoff(0.02), 1500)
        again = [redis.exceptions.BusyLoadingError]
        with connected(self.url, retry=patient, retry_on_error=again) as db, suppress(redis.AuthenticationError):
            db.ping()
        return self

    def kill(self):
        """Kill the server, as a power cut would."""
        self._process.kill()
        self._process.wait()

    def restart(self):
        """Kill the server, and start it again with its data."""
        self.kill()
        self.start()


@contextmanager
def private_server(folder, *options):
    """Start a server, kill it in the end."""
    server = PrivateServer(folder, *options).start()
    try:
        yield server
    finally:
        server.kill()


def overwrite(storage, task_id, field, data):
    """Change a field of a task's hash by hand."""
    with connected(SERVER) as db:
        db.hset(f"{storage._server.prefix}:task:{task_id}", field, data)
