"""URLs of stores: an invalid URL raises an error that says what is wrong, and no error shows a password."""

import logging

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.strategies import patient

from lifecycle import ConfigurationError, LifecycleError, TaskQueue

BAD_URLS = {
    "": None,  # the default
    "app.db": "no scheme.*memory://, sqlite://",
    "/var/lib/app.db": "no scheme",
    "mysql://localhost/app": "unknown scheme mysql://: there are memory://, sqlite://",
    "SQLITE:///app.db?": None,
    "sqlite://": "three slashes and a file",
    "sqlite:///": "three slashes and a file",
    "sqlite://app.db": "three slashes",
    "sqlite://app.db/": "three slashes",
    "sqlite:app.db": None,
    "sqlite:///:memory:": "use memory://",
    "sqlite:///app.db?synchronous=never": "synchronous.* off, normal, full, extra",
    "sqlite:///app.db?timeout=soon": "timeout.*seconds",
    "sqlite:///app.db?timeout=-1": "timeout.*seconds",
    "sqlite:///app.db?timeout=nan": "timeout.*seconds",
    "sqlite:///app.db?timeout=inf": "timeout.*seconds",
    "sqlite:///app.db?journal=off": "unknown option journal.*there are mode, synchronous and timeout",
    "sqlite:///app.db?synchronous": "URL",
    "memory:///path": "memory:// takes neither",
    "memory://host": "memory:// takes neither",
    "memory://?synchronous=full": "memory:// takes neither",
    "http://[::1": "URL",
}


@pytest.mark.parametrize("url", [url for url, words in BAD_URLS.items() if words])
def test_invalid_url_is_refused_before_anything_is_created(url, tmp_path, monkeypatch):
    """An invalid URL is refused before a file is created; the error says what is wrong, and what is allowed."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=BAD_URLS[url]):
        TaskQueue(url)
    monkeypatch.setenv("LIFECYCLE_URL", url)
    with pytest.raises(ConfigurationError, match=BAD_URLS[url]):
        TaskQueue()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["sqlite:///no/such/folder/app.db", "sqlite:///{}", "sqlite:///{}/text"])
def test_file_that_is_no_queue_is_refused_at_the_first_use(tmp_path, url):
    """A file that holds no queues is refused at the first use, and not changed; the error says what the file is."""
    (tmp_path / "text").write_text("not a database, whatever its name" * 100)
    queue = TaskQueue(url.format(tmp_path))
    add = queue.task(name="add")(lambda: None)
    for _ in range(2):
        with pytest.raises(LifecycleError, match=r"folder|another program|cannot be used"):
            add()
    assert (tmp_path / "text").read_text().startswith("not a database")
    queue.close()


SECRET = "hunter2"
SECRET_URLS = [
    "postgresql://user:hunter2@host/app", "redis://:hunter2@host:6379/0", "mysql://user:hunter2@host/app",
    "sqlite://user:hunter2@host/app.db", "memory://user:hunter2@", "postgresql://user:hunter2@[::1/app",
    "postgresql://user:hunter2@ho\u2100st/app", "postgresql://user:hunter2@host/app?hunter2",
    "sqlite:///app.db?password=hunter2", "sqlite:///app.db?hunter2", "sqlite:///app.db?timeout=hunter2",
    "sqlite:///app.db?synchronous=hunter2", "user:hunter2@host", "//user:hunter2@host/app", "hunter2",
    "postgresql://user:hunter2@host:port/app", "postgres ql://user:hunter2@host/app",
]  # fmt: skip


@pytest.mark.parametrize("url", SECRET_URLS)
def test_no_error_repr_or_log_shows_a_password(url, caplog, monkeypatch):
    """No error, repr or log shows a URL, since a URL can contain a password."""
    caplog.set_level(logging.DEBUG)
    shown = []
    try:
        queue = TaskQueue(url)
        shown += [repr(queue), repr(queue.storage), repr(queue.engine)]
    except ConfigurationError as error:
        while error is not None:
            shown += [str(error), repr(error)]
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert shown
    assert SECRET not in " ".join(shown)
    assert SECRET not in caplog.text


@patient
@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    st.sampled_from(["", "sqlite://", "memory:", "x://a:b@"]),
)
@example("[", "x://")
def test_any_text_is_a_url_or_a_configuration_error(text, scheme):
    """Any text given as a URL opens a store, or raises `ConfigurationError`."""
    try:
        TaskQueue(scheme + text or "memory://")
    except ConfigurationError as error:
        assert str(error)
