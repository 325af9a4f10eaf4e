"""Queues with Huey's names, on each kind of store."""

from contextlib import closing

import pytest
from support.postgres import postgres_store_url, temporary_database
from support.redis_server import redis_store_url, require_server

from lifecycle.huey import Huey


@pytest.fixture(params=["memory", "sqlite", "redis", "postgres"])
def url(request, tmp_path):
    """Yield the URL of an empty store of each kind."""
    if request.param == "memory":
        yield "memory://"
    elif request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/suite.db?synchronous=off"
    elif request.param == "redis":
        require_server()
        yield redis_store_url()
    else:
        with temporary_database() as database:
            yield postgres_store_url(database)


@pytest.fixture
def huey(url):
    """Yield a queue on each kind of store."""
    with closing(Huey(url=url)) as queue:
        yield queue
