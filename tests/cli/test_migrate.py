"""The command `lifecycle migrate`."""

import pytest
from conftest import on_server
from support.command_line import is_one_line
from support.postgres import postgres_store_url, unused_name

from lifecycle.queue import URL_VARIABLE
from lifecycle.storage.postgres import schema as postgres_schema

KNOWN = len(postgres_schema.MIGRATIONS)


def test_tables_are_made_once(command_line, postgres):
    """The first call makes the tables of a PostgreSQL store, the second one finds them up to date."""
    url = postgres_store_url(postgres, schema=unused_name())
    made = command_line("migrate", "--url", url)
    assert made == (0, f"the tables were made, in version {KNOWN}\n", "")
    assert command_line("migrate", "--url", url) == (0, f"the tables have version {KNOWN}\n", "")


def test_store_may_be_named_by_the_environment(command_line, monkeypatch, request):
    """Without a queue and without `--url`, the store is the one of the environment variable."""
    monkeypatch.setenv(URL_VARIABLE, on_server("postgres", request))
    code, out, err = command_line("migrate")
    assert (code, out.startswith("the tables "), err) == (0, True, "")


def test_queue_of_a_module_is_migrated(command_line, folder, request):
    """A queue can be named as for `lifecycle run`."""
    url = on_server("postgres", request)
    (folder / "app.py").write_text(f"from lifecycle import TaskQueue\nqueue = TaskQueue({url!r})\n")
    code, out, err = command_line("migrate", "app:queue")
    assert (code, out.startswith("the tables "), err) == (0, True, "")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "name a queue"),
        (("app:queue", "--url", "sqlite:///app.db"), "not both"),
        (("--url", "sqlite:///app.db"), "SQLiteStorage has nothing to migrate"),
        (("--url", "memory://"), "MemoryStorage has nothing to migrate"),
    ],
)
def test_store_that_cannot_be_migrated_is_one_line_and_exit_code_2(command_line, monkeypatch, arguments, reason):
    """A missing or second name, and a store without a schema, are refused in one line."""
    monkeypatch.delenv(URL_VARIABLE, raising=False)
    code, out, err = command_line("migrate", *arguments)
    assert (code, out) == (2, "")
    assert is_one_line(err)
    assert reason in err


def test_unreachable_server_is_one_line_without_the_password(command_line, folder):
    """A server that does not answer is reported in one line, without the password of the URL."""
    code, out, err = command_line("migrate", "--url", "postgresql://user:hunter2@127.0.0.1:1/app")
    assert (code, out) == (2, "")
    assert is_one_line(err, "PostgreSQL cannot be reached")
    assert "hunter2" not in err
