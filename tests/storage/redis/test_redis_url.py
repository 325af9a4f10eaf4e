"""``redis://`` URLs."""

import traceback

import pytest

from lifecycle import ConfigurationError, TaskQueue
from lifecycle.storage import open_storage

BAD_URLS = {
    "redis://host/app": "the path of a redis URL is the number of a database",
    "redis://host/-1": "the path of a redis URL is the number of a database",
    "redis://host:port/0": "the port in a redis URL is none",
    "redis://host:99999/0": "the port in a redis URL is none",
    "redis://host/0?pool=9": "no option pool in a redis URL: there are prefix, timeout and patience",
    "redis://host/0?ssl_ca_certs=a.pem": "no option ssl_ca_certs in a redis URL.* with rediss:// ssl_ca_certs",
    "redis://host/0?timeout=0": "timeout in a redis URL: it takes seconds, more than 0",
    "redis://host/0?timeout=nan": "timeout in a redis URL: it takes seconds",
    "redis://host/0?patience=-1": "patience in a redis URL: it takes seconds, 0 or more",
    "redis://host/0?patience=hunter2": "patience in a redis URL: it takes seconds, 0 or more",
    "redis://host/0?prefix=": "prefix in a redis URL: it takes letters",
    "redis://host/0?prefix=a:b": "prefix in a redis URL: it takes letters",
    "rediss://host/0?ssl_check_hostname=maybe": "ssl_check_hostname in a redis URL: it takes yes or no",
    "rediss://host/0?ssl_cert_reqs=hunter2": "ssl_cert_reqs in a redis URL: it takes none, optional or required",
    "redis://:hunter2@host/0#1": "contains a #",
    "redis://:hunter2@[::1/0": "no URL of a store",
}


@pytest.mark.parametrize("url", BAD_URLS)
def test_invalid_url_is_refused_without_its_secrets(url):
    """A URL that cannot be right is refused when the queue is declared, in words that say what is, without its parts."""
    with pytest.raises(ConfigurationError, match=BAD_URLS[url]) as caught:
        TaskQueue(url)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_url_is_parsed_with_defaults():
    """User, password, host, port, database and options are taken as they are meant; what is left out has a default."""
    place = open_storage("rediss://me:p%40ss@h:7/3?timeout=2&patience=0&prefix=shop&ssl_check_hostname=no", "q")._server
    expected = {
        "host": "h", "port": 7, "db": 3, "username": "me", "password": "p@ss", "socket_timeout": 2.0,
        "ssl_check_hostname": False,
    }  # fmt: skip
    assert expected.items() <= place.settings.parameters.items()
    assert (place.settings.tls, place.settings.patience, place.prefix) == (True, 0.0, "{shop:q}")
    plain = open_storage("redis://", "q")._server
    expected = {"host": "127.0.0.1", "port": 6379, "db": 0, "username": None, "password": None}
    assert expected.items() <= plain.settings.parameters.items()
    assert (plain.settings.tls, plain.prefix) == (False, "{lifecycle:q}")
    assert "p@ss" not in repr(place.settings)


def test_missing_driver_is_named(monkeypatch):
    """Without the driver the error says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "redis", None)
    with pytest.raises(ConfigurationError, match=r"needs redis-py 5 .*pip install 'task-lifecycle\[redis\]'"):
        TaskQueue("redis://host/0")
