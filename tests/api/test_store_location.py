"""The place of a queue: fixed when the queue is made, and named in errors and representations without its password."""

import pytest
from conftest import SOON, drain

from lifecycle import ConfigurationError, ResultTimeout, TaskQueue
from lifecycle.storage import open_storage


def test_relative_file_is_found_when_the_queue_is_made(tmp_path, monkeypatch):
    """A relative path counts from the folder in which the queue is made, also if the folder changes before its first use."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    queue = TaskQueue("sqlite:///app.db")
    add = queue.task(name="add")(lambda: 1)
    monkeypatch.chdir(tmp_path / "b")
    add()
    again = TaskQueue("sqlite:///../a/app.db")
    assert again.counts()["queued"] == 1
    assert not list((tmp_path / "b").iterdir())
    for each in (queue, again):
        each.close()


def test_relative_file_in_a_folder_that_is_gone_is_refused(tmp_path, monkeypatch):
    """A relative path in a folder that was deleted is refused, with the way out."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ConfigurationError, match=r"the current folder is gone.*name an absolute path"):
        TaskQueue("sqlite:///app.db")
    assert "app.db" in repr(TaskQueue(f"sqlite:///{tmp_path}/app.db"))


LOCATIONS = {
    "sqlite:////var/lib/a%231.db?timeout=5": "sqlite:////var/lib/a%231.db",
    "memory://": "memory://",
    "redis://": "redis://127.0.0.1:6379/0",
    "rediss://me:hunter2@[::1]:7/3?timeout=2": "rediss://me@[::1]:7/3",
    "redis://:hunter2@host/1": "redis://host:6379/1",
    "postgresql://": "postgresql:///",
    "postgresql://me:hunter2@a,b:7/app?sslmode=disable": "postgresql://me@a,b:,7/app",
    "postgres://me@host/app?password=hunter2&schema=mine": "postgresql://me@host/app?schema=mine",
}


@pytest.mark.parametrize("url", LOCATIONS)
def test_queue_names_its_store_without_the_password(url):
    """The representation of a queue has the URL of its store, without password and options."""
    assert repr(TaskQueue(url, name="mail")) == f"<TaskQueue 'mail' on {LOCATIONS[url]}>"
    assert open_storage(url, "q").location == LOCATIONS[url]


def test_timeout_of_a_result_names_the_store(queue, add):
    """A wait that ends without an outcome says in which store the task waits: perhaps no consumer works there."""
    with pytest.raises(ResultTimeout) as caught:
        add(1).get(timeout=SOON)
    assert f"its state is queued, in {queue.storage.location};" in str(caught.value)


BAD_PARTS = {
    "a #": ["sqlite:///app#1.db", "postgresql://host/app#1", "memory://#", "postgresql://u:hunter2#x@host/app"],
    "write @ as %40": [
        "postgresql://user:hunter2@ss@host/app", "redis://user:hunter2@ss@host/0", "postgresql://user:hunter2/ss@host/app",
        "redis://u:6379/hunter2@host/0",
    ],
    "an option twice": ["sqlite:///app.db?timeout=1&timeout=2", "postgresql://host/app?schema=a&schema=a"],
    "control characters": ["sqlite:///a\nb.db", "postgresql://user:hunter2\t@host/app", "sqlite:///\ud800.db"],
    "no UTF-8": ["sqlite:///a%ff.db", "redis://:hunter2%ff@host/0"],
    "U\\+0000": ["sqlite:///a%00b.db"],
}  # fmt: skip


@pytest.mark.parametrize(("words", "url"), [(words, url) for words in BAD_PARTS for url in BAD_PARTS[words]])
def test_url_that_would_be_read_as_another_is_refused(words, url):
    """A URL with a character that would be dropped or mean another place is refused; no error shows a password."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        TaskQueue(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("ahead", [None, 60])
def test_task_of_a_revoked_function_is_revoked(queue, clock, add, ahead):
    """A task counts as revoked as soon as its function is, if it would be revoked at its turn; later it is."""
    result, other = add.schedule((1,), delay=ahead), queue.task(name="other")(lambda: 1)()
    assert not result.is_revoked()
    add.revoke(revoke_until=30)
    assert (result.is_revoked(), other.is_revoked(), queue.is_revoked(result.id)) == (
        ahead is None,
        False,
        ahead is None,
    )
    add.revoke()
    assert result.is_revoked()
    assert queue.is_revoked(result.task)
    clock.advance(ahead or 0)
    drain(queue)
    assert (result.state, result.is_revoked(), other.get()) == ("revoked", True, 1)
    add.restore()
    done = add(1)
    drain(queue)
    add.revoke()
    assert not done.is_revoked()


def test_task_that_expires_before_its_revocation_counts_is_not_revoked(queue, clock, add):
    """A task that would expire at its turn does not count as revoked."""
    result = add.schedule((1,), expires=10)
    clock.advance(10)
    add.revoke()
    assert not result.is_revoked()
    assert queue.run_next().state == "expired"


def test_wait_after_reset_ends_at_once_if_no_outcome_can_come(queue, add):
    """After `reset`, a wait for a task that is complete ends at once: no later attempt can have an outcome."""
    result = add(1)
    drain(queue)
    assert result.get() == 1
    result.reset()
    assert result.get() is None
    for options in ({"blocking": True}, {"timeout": 3600}):
        with pytest.raises(ResultTimeout, match="is complete, and that is final: after reset"):
            result.get(**options)
