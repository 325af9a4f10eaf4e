"""Huey's own tests, run against `lifecycle.huey` on each store."""

import pytest
from huey_suite.verdicts import KINDS, faults, read_verdicts
from support.postgres import postgres_store_url, temporary_database
from support.redis_server import redis_store_url, require_server

pytestmark = pytest.mark.untraced


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


def test_each_test_of_huey_passes_or_has_its_verdict(url):
    """Each of Huey's tests passes on each store, or fails as its verdict says, for a reason that is written down."""
    assert list(faults(url)) == []


def test_each_verdict_has_a_reason():
    """Each verdict is of a known kind, with a reason and a failure that it expects."""
    for verdict in read_verdicts():
        assert verdict.verdict in KINDS
        assert verdict.reason
        assert verdict.fails
