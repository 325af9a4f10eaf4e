"""A workflow of a few tasks, half-way through, for the pictures."""

from contextlib import closing
from typing import Final

from lifecycle.core.nodes import Group
from lifecycle.core.task import Task
from lifecycle.diagrams.workflow import Workflow, collect, workflow
from lifecycle.errors import TaskException
from lifecycle.queue import TaskQueue
from lifecycle.storage.base import ClaimRequest
from lifecycle.virtual_clock import VirtualClock

__all__ = ["example_workflow"]

CHAPTER_COUNT: Final = 9
DONE_COUNT: Final = 4
"""Tasks that have run: the first one, and some of the chapters."""


def example_workflow() -> Workflow:
    """Return the content of a diagram: a book is fetched, its chapters are counted, one chapter at this moment."""
    with closing(TaskQueue("memory://", clock=VirtualClock())) as queue:

        @queue.task(name="fetch")
        def fetch() -> str:
            return "a book"

        @queue.task(name="count_words")
        def count_words(chapter: int, book: str) -> int:
            return chapter * len(book)

        @queue.task(name="total")
        def total(numbers: list[int]) -> int:
            return sum(numbers)

        @queue.task(name="mail")
        def mail(number: int) -> None:
            del number

        @queue.task(name="alert")
        def alert(error: TaskException) -> None:
            del error

        book, numbers = fetch.s(), range(1, CHAPTER_COUNT + 1)
        chapters: list[Task] = [count_words.s(number) for number in numbers]  # type: ignore[call-overload]  # the book comes later
        tasks = [book, *chapters, total.s(), mail.s(), alert.s()]
        for number, task in enumerate(tasks, 1):
            task.id = f"{task.name}-{number}"  # the same each time
        *_, last, letter, callback = tasks
        queue.enqueue((book | Group(chapters) | last | letter).error(callback))
        for _ in range(DONE_COUNT):
            queue.run_next()
        queue.storage.exchange((), ClaimRequest("worker", queue.engine.clock.now(), queue.engine.lease))
        return workflow("A workflow, half-way through", collect([book.id], queue.storage.get))
