"""The command that brings a store's tables up to date."""

import os
import sys
from typing import Annotated

import typer

from lifecycle.consumer.loading import load_queue
from lifecycle.queue import URL_VARIABLE, TaskQueue
from lifecycle.storage.postgres.storage import PostgresStorage

__all__ = ["migrate"]


def migrate(
    target: Annotated[
        str | None, typer.Argument(metavar="[MODULE:QUEUE]", help="The queue, as in tasks:queue.")
    ] = None,
    url: Annotated[
        str | None, typer.Option("--url", help="The store instead of a queue; default: $LIFECYCLE_URL.")
    ] = None,
) -> None:
    """Make the tables of a store on PostgreSQL, or bring them up to date with this release.

    Needed only where the URL says migrate=no, say because consumers may not change a schema: else the first use does
    it. Running it twice, or twice at once, does no harm.
    """
    if target is not None and url is not None:
        raise typer.BadParameter("give a queue (tasks:queue) or --url, not both")
    url = url or os.environ.get(URL_VARIABLE)
    if target is None and url is None:
        raise typer.BadParameter(f"name a queue (tasks:queue), or a store with --url or ${URL_VARIABLE}")
    queue = load_queue(target) if target is not None else TaskQueue(url)
    storage = queue.storage
    if not isinstance(storage, PostgresStorage):
        raise typer.BadParameter(f"{type(storage).__name__} has nothing to migrate: it is made at its first use")
    before, now = storage.migrate()
    made = "have" if before == now else "were brought to" if before else "were made, in"
    sys.stdout.write(f"the tables {made} version {now}\n")
    queue.close()
