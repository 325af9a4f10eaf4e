"""Options of Huey's classes for each store: each leads to a URL, or is refused with a reason."""

import logging

import pytest

from lifecycle import ConfigurationError, UnknownOption
from lifecycle.huey import (
    BlackHoleHuey,
    CySqliteHuey,
    FileHuey,
    Huey,
    MemoryHuey,
    PostgresHuey,
    PriorityRedisExpireHuey,
    RedisExpireHuey,
    RedisHuey,
    SqliteHuey,
)


@pytest.mark.parametrize(
    ("make", "location"),
    [
        (lambda path: MemoryHuey("app"), "memory://"),
        (lambda path: SqliteHuey("app", filename=f"{path}/a ?#%.db", fsync=True, cache_mb=4), "sqlite:///{path}/a ?#%.db"),
        (lambda path: SqliteHuey(filename=path / "b.db", journal_mode="wal", timeout=90), "sqlite:///{path}/b.db"),
        (lambda path: CySqliteHuey("app", path / "c.db", pragmas={}), "sqlite:///{path}/c.db"),
        (lambda path: FileHuey("app", path=path, levels=3), "sqlite:///{path}/lifecycle.db"),
        (lambda path: RedisHuey("app"), "redis://localhost:6379/0"),
        (lambda path: RedisHuey(host="db", port=1, db=2, username="u", password="p@"), "redis://u@db:1/2"),
        (lambda path: RedisHuey(url="redis://db:7/3", blocking=False), "redis://db:7/3"),
        (lambda path: RedisHuey(host="db", ssl=True), "rediss://db:6379/0"),
        (lambda path: PostgresHuey(dsn="postgresql://u:p@db/app"), "postgresql://u@db/app"),
        (lambda path: PostgresHuey(dsn="dbname=app host=db user=u password=p"), "postgresql://u@db/app"),
        (lambda path: PostgresHuey(database="app", host="db", port=5), "postgresql://db:5/app"),
    ],
)  # fmt: skip
def test_options_lead_to_a_url(make, location, tmp_path):
    """The options of Huey's classes name the store; options that have no meaning here have no effect."""
    huey = make(tmp_path)
    found = huey.queue.storage.location
    assert found.replace("%20", " ").replace("%3F", "?").replace("%23", "#").replace("%25", "%") == location.format(
        path=tmp_path
    )
    huey.close()


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: SqliteHuey(filename=":memory:"), "take MemoryHuey"),
        (lambda: SqliteHuey(filename=3), "filename=3: must be a str"),
        (lambda: SqliteHuey(file="a.db"), "no option 'file'"),
        (lambda: MemoryHuey(result=True), "did you mean results="),
        (lambda: MemoryHuey(utc="no"), "utc='no'"),
        (lambda: MemoryHuey(store_none=1), "store_none=1"),
        (lambda: RedisHuey(connection_pool=object()), "connections of its own"),
        (lambda: RedisHuey(url="redis://db", host="db"), "not both"),
        (lambda: PostgresHuey(connection=object()), "connections of its own"),
        (lambda: PostgresHuey(server="db"), "no parameter server"),
        (lambda: PostgresHuey(dsn="what is this"), "dsn: write"),
        (lambda: RedisExpireHuey(expire_time=-1), "expire_time=-1"),
        (lambda: Huey(""), "name=''"),
    ],
)  # fmt: skip
def test_options_are_refused_where_they_are_written(make, error):
    """An option that does not exist, or that cannot be, raises an error that names it."""
    with pytest.raises(ConfigurationError, match=error):
        make()


def test_unknown_options_are_of_their_own_type():
    """An unknown option raises `UnknownOption`, which is a `TypeError`, too."""
    with pytest.raises(UnknownOption):
        MemoryHuey("app", worker=1)


def test_expiring_results_are_kept_for_their_time():
    """The time after which results expire is the retention of the queue."""
    assert RedisExpireHuey("app", expire_time=60).queue.retention == 60
    assert PriorityRedisExpireHuey("app").queue.retention == 86_400


def test_a_black_hole_drops_tasks(caplog):
    """A `BlackHoleHuey` checks a call, and drops the task."""
    caplog.set_level(logging.ERROR)
    huey = BlackHoleHuey()
    function = huey.task()(abs_of)
    assert function(1).get() is None
    assert len(huey) == 0
    with pytest.raises(TypeError):
        function()
    with pytest.raises(ConfigurationError, match="is no task"):
        huey.enqueue(abs_of)


def abs_of(number):
    return abs(number)
