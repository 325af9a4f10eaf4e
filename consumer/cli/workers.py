"""``lifecycle workers``: the workers that run tasks now, as the leases in the store say."""

from typing import Final

import attrs

from lifecycle.consumer.cli.columns import PAGE_LIMIT, Column, print_columns
from lifecycle.consumer.cli.options import command, json_option, with_queue_to_read
from lifecycle.consumer.cli.output import print_json, short_duration
from lifecycle.consumer.cli.selection import Selection
from lifecycle.consumer.cli.task_fields import call_text
from lifecycle.consumer.cli.task_ids import printed_ids
from lifecycle.core.table import LIFECYCLE, Kind
from lifecycle.core.task import Task
from lifecycle.queue import TaskQueue

__all__ = ["workers"]

DETAILS: Final = """
A worker is alive while it extends its leases. A lapsed lease means that the worker is dead, frozen or cut off; the next
consumer that looks requeues the task. Idle workers hold no lease: the store does not know them.
"""
RUNNING: Final = tuple(state.name for state in LIFECYCLE.states if state.kind is Kind.RUNNING)


@attrs.frozen
class _Job:
    """A task that a worker runs."""

    id_text: str
    task: Task
    started_at: float | None
    """UTC seconds."""
    now: float

    @property
    def is_alive(self) -> bool:
        """True while the lease lasts."""
        return self.task.lease is not None and self.task.lease > self.now

    @property
    def lease_text(self) -> str:
        """The rest of the lease, or the time since its end."""
        rest = (self.task.lease or self.now) - self.now
        return f"{short_duration(rest)} left" if self.is_alive else f"lapsed {short_duration(-rest)} ago"


COLUMNS: Final[list[Column[_Job]]] = [
    Column("worker", lambda job: job.task.worker or "", 10, least_width=16, cut="left"),
    Column("lease", lambda job: job.lease_text, 9, style=lambda job: "green" if job.is_alive else "red"),
    Column("runs for", lambda job: "" if job.started_at is None else short_duration(job.now - job.started_at), 7),
    Column("attempt", lambda job: str(job.task.attempt), 5),
    Column("id", lambda job: job.id_text, 6),
    Column("call", lambda job: call_text(job.task), 8, least_width=18),
]


@command("workers", DETAILS)
@with_queue_to_read
@json_option
def workers(queue: TaskQueue, as_json: bool) -> None:
    """Print a line for each task that runs."""
    jobs = sorted(_jobs(queue), key=lambda job: (job.task.worker or "", job.started_at or 0.0))
    if as_json:
        print_json([_fields(job) for job in jobs])
    else:
        print_columns(COLUMNS, [jobs[start : start + PAGE_LIMIT] for start in range(0, len(jobs), PAGE_LIMIT)])


def _jobs(queue: TaskQueue) -> list[_Job]:
    jobs, printed = [], printed_ids(queue)
    for page in Selection(RUNNING).pages(queue):
        texts = printed([found.task.id for found in page])
        for found in page:
            records = queue.storage.history(found.task.id) or []
            started = [record.at for record in records if record.state in RUNNING]
            jobs.append(
                _Job(texts[found.task.id], found.task, started[-1] if started else None, queue.engine.clock.now())
            )
    return jobs


def _fields(job: _Job) -> dict[str, object]:
    task = job.task
    return {
        "worker": task.worker, "alive": job.is_alive, "lease": task.lease, "started_at": job.started_at, "id": task.id,
        "name": task.name, "attempt": task.attempt, "canceling": task.canceling,
    }  # fmt: skip
