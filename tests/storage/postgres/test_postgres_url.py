"""``postgresql://`` URLs, and connections that fail."""

import re
import traceback
from contextlib import closing

import pytest
from support.postgres import SERVER, connected, postgres_store_url
from support.stores import PRODUCER

from lifecycle import ConfigurationError, TaskQueue
from lifecycle.core.task import Task
from lifecycle.errors import StorageUnavailable, StorageUnusable
from lifecycle.storage import open_storage

BAD_URLS = {
    "postgresql://host/app?schemata=a": "no option schemata in a postgresql URL: there are schema, migrate and pool_size",
    "postgresql://host/app?migrate=perhaps": "migrate in a postgresql URL: it takes yes or no",
    "postgresql://host/app?pool_size=0": "pool_size .* a whole number, 1 or more",
    "postgresql://host/app?pool_size=many": "pool_size .* a whole number, 1 or more",
    "postgresql://host/app?schema=": "schema in a postgresql URL: .* up to 63 bytes",
    "postgresql://host/app?schema=pg_mine": "schema .* does not begin with pg_",
    f"postgresql://host/app?schema={'s' * 64}": "schema .* up to 63 bytes",
    "postgresql://us%er:hunter2@host/app": "no URL of a PostgreSQL database: write it as",
    "postgresql://user:hunter2@[::1]x/app": "no URL of a PostgreSQL database|cannot be read",
}


@pytest.mark.parametrize("url", BAD_URLS)
def test_invalid_url_is_refused_without_its_secrets(url):
    """A URL that cannot be right is refused when the queue is declared, in words that say what is, without its parts."""
    with pytest.raises(ConfigurationError, match=BAD_URLS[url]) as caught:
        TaskQueue(url)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_url_accepts_all_that_libpq_accepts(postgres):
    """Both schemes, several hosts, a socket's folder and all parameters of libpq are taken as libpq takes them."""
    for url, expected in {
        "postgres://u:p%40ss@h1:1,h2:2/app?sslmode=disable&target_session_attrs=any": {
            "user": "u", "password": "p@ss", "host": "h1,h2", "port": "1,2", "dbname": "app", "sslmode": "disable",
            "target_session_attrs": "any",
        },
        "postgresql://%2Fvar%2Frun%2Fpg/app?application_name=mine": {"host": "/var/run/pg", "application_name": "mine"},
        "postgresql://": {},
    }.items():  # fmt: skip
        parameters = open_storage(url, "q")._server.pool.parameters
        assert expected.items() <= parameters.items()
    assert open_storage("postgresql://h/d?connect_timeout=3", "q")._server.pool.parameters["connect_timeout"] == "3"
    with closing(open_storage(postgres_store_url(postgres, application_name="mine"), "q")) as storage:
        assert storage._server.read.__self__ is storage._server
        storage.counts()
        with connected(postgres) as db:
            assert db.execute("select count(*) from pg_stat_activity where application_name = 'mine'").fetchone() == (
                1,
            )


def test_missing_driver_is_named(monkeypatch):
    """Without the driver the error says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "psycopg", None)
    with pytest.raises(ConfigurationError, match=r"needs psycopg 3 .*pip install 'task-lifecycle\[postgres\]'"):
        TaskQueue("postgresql://host/app")


UNREACHABLE = {
    "nobody there": ("postgresql://user:hunter2@127.0.0.1:1/app", StorageUnavailable, "cannot be reached, .*again"),
    "no such host": ("postgresql://user:hunter2@no.such.host.invalid/app", StorageUnavailable, "cannot be reached"),
    "no such database": ("{}/no_such_database", StorageUnusable, 'database "no_such_database" does not exist'),
    "no such user": ("{nobody}", StorageUnusable, "role .* does not exist"),
}


@pytest.mark.parametrize("case", UNREACHABLE)
def test_failed_connection_is_explained_without_the_password(postgres, caplog, case):
    """Where there is no way to the database the error says why, and never what the password is."""
    url, kind, words = UNREACHABLE[case]
    host = re.sub(r"//.*@", "//", SERVER).rpartition("/")[0].partition("//")[2]
    nobody = f"postgresql://no_such_user:hunter2@{host}/postgres"
    with closing(open_storage(url.format(SERVER.rpartition("/")[0], nobody=nobody), "q")) as storage:
        for use in (storage.counts, lambda: storage.enqueue([Task("a", "add")], 1.0, PRODUCER)):
            with pytest.raises(kind, match=words) as caught:
                use()
            assert "hunter2" not in "".join(traceback.format_exception(caught.value)) + caplog.text + repr(storage)
