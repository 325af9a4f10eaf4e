"""What the Redis adapter keeps to: the spec, and where the world is less kind."""

import itertools

import pytest
from hypothesis import settings
from redis_server import SERVER, a_prefix, clear_away, connected, keys, opened
from stores import PRODUCER, settlement, start

from lifecycle.policies import Revocation
from lifecycle.storage.base import Lock, Target
from lifecycle.table import FAIL
from lifecycle.task import Task
from lifecycle.testing.steps import FUNCTIONS, IDS
from lifecycle.testing.storage_spec import StorageSpec

pytestmark = pytest.mark.usefixtures("redis_url")

# The spec --------------------------------------------------------------------------------------------------------


class RedisSpec(StorageSpec):
    """The Redis adapter; on the same server is another queue, with the same ids, that nothing must happen to."""

    @classmethod
    def open_storage(cls):
        cls.prefix = a_prefix()
        return opened(cls.prefix)

    @classmethod
    def reopen(cls, storage):
        return opened(cls.prefix)

    def teardown(self):
        super().teardown()
        clear_away(self.prefix)


def contents(prefix):
    """All that is there, but for the answers that are remembered."""
    with connected(SERVER) as db:
        return {key: db.dump(key) for key in keys(db, prefix) if not key.endswith(b":answers")}


@pytest.fixture(scope="class")
def neighbour():
    """Makes the other queue, and looks in the end whether it is as it was."""
    name = a_prefix()
    other = opened(name)
    other.enqueue([Task(one, "add", eta=None if one in "ace" else 900.0) for one in IDS], 1.0, PRODUCER)
    ended, *_ = start(other, "w1", limit=7)
    other.exchange([settlement(ended, FAIL, retry=False)], None)
    for key, function in itertools.product(IDS[:2] + FUNCTIONS, (True, False)):
        other.revoke(Target(function, key), Revocation(once=True), 1.0)
    other.lock(Lock("L", "x", 9.0, "w1", "a"), 1.0)
    other.close()
    before = contents(name)
    assert len(before) > len(IDS)
    yield
    assert contents(name) == before


@pytest.mark.usefixtures("neighbour")
class TestRedis(RedisSpec.TestCase):
    """The spec, on Redis."""


TestRedis.settings = settings(TestRedis.settings, max_examples=25)
