"""``lifecycle migrate``: bring a store's tables up to date."""

import os
import sys
from contextlib import closing

import click

from lifecycle.consumer.cli.options import command, target_argument, url_option
from lifecycle.consumer.loading import load_queue
from lifecycle.queue import URL_VARIABLE, TaskQueue
from lifecycle.storage.postgres.storage import PostgresStorage

__all__ = ["migrate"]

DETAILS = """
Needed only where the URL says migrate=no, for example because consumers may not change a schema; otherwise the first
use does it. Running it twice, or twice at once, does no harm.
"""


@command("migrate", DETAILS)
@target_argument
@url_option
def migrate(target: str | None, url: str | None) -> None:
    """Migrate a store, and print the version of its tables."""
    if target is not None and url is not None:
        raise click.UsageError("give a queue (tasks:queue) or --url, not both")
    url = url or os.environ.get(URL_VARIABLE)
    if target is None and url is None:
        raise click.UsageError(f"name a queue (tasks:queue), or a store with --url or ${URL_VARIABLE}")
    with closing(load_queue(target) if target is not None else TaskQueue(url)) as queue:
        storage = queue.storage
        if not isinstance(storage, PostgresStorage):
            raise click.UsageError(f"{type(storage).__name__} has nothing to migrate: it is made at its first use")
        before, now = storage.migrate()
        change = "have" if before == now else "were brought to" if before else "were made, in"
        sys.stdout.write(f"the tables {change} version {now}\n")
