"""All scenarios: what each needs, and how one is run."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import attrs
from faults import outages
from faults.audit import Audit
from faults.clocks import clocks
from faults.freeze import freeze
from faults.places import Place, place
from faults.poison import poison
from faults.storm import storm
from faults.trial import Options, Trial, on_trial

from lifecycle import StorageError
from lifecycle.consumer.consumer import WORKER_TYPES

__all__ = ["KINDS", "SCENARIOS", "Report", "Scenario", "planned", "tried"]

KINDS = tuple(kind for kind in ("thread", "process", "asyncio") if kind in WORKER_TYPES)
"""The kinds of worker that are tried unless one is told otherwise: those that need nothing to be installed."""
SERVERS = frozenset({"postgres", "redis"})


class Scenario(NamedTuple):
    """One way in which the world is unkind."""

    run: Callable[[Trial], None]
    done: str
    """What is done to somebody, in the plural."""
    lease: float = 1.5
    """Seconds; of the queue."""
    stores: frozenset[str] = SERVERS | {"sqlite"}
    private: bool = False
    """Needs a server of its own."""
    each_kind: bool = False
    """A trial for each kind of worker; else all kinds work together."""
    disk: int = 0
    """Megabytes that the store has."""
    tasks: int | None = None
    """As many at the most, whatever is asked for: what takes time is not their number."""
    kills: int | None = None
    few: bool = False
    """Tasks rest after few interruptions."""


SCENARIOS = {
    "storm": Scenario(storm, "kills"),
    "freeze": Scenario(freeze, "freezes", each_kind=True, kills=4),
    "restart": Scenario(outages.restart, "restarts", lease=5.0, stores=SERVERS, private=True),
    "cut": Scenario(outages.cut, "cuts", lease=5.0, stores=SERVERS),
    "answers": Scenario(outages.lost_answers, "lost answers", lease=5.0, stores=SERVERS),
    "clocks": Scenario(clocks, "host with a wrong clock", lease=4.0, stores=SERVERS, tasks=400),
    "disk": Scenario(
        outages.disk, "times without room", lease=5.0, stores=frozenset({"sqlite"}), disk=16, tasks=400, kills=4
    ),
    "poison": Scenario(poison, "worker deaths", each_kind=True, tasks=400, kills=3, few=True),
}


class Report(NamedTuple):
    """What came of a trial."""

    scenario: str
    store: str
    kinds: tuple[str, ...]
    disturbances: str
    seconds: float
    audit: Audit
    figures: dict[str, int]
    logs: Path | None = None
    """Where what the consumers said is kept, if something was wrong."""

    @property
    def passed(self) -> bool:
        """Is nothing wrong?"""
        return not self.audit.faults


def planned(name: str, store: str, options: Options) -> Iterator[Options]:
    """The trials of a scenario on a store; none if it makes no sense there."""
    scenario = SCENARIOS[name]
    kind = {"postgresql": "postgres"}.get(store.partition(":")[0], store.partition(":")[0])
    if kind not in scenario.stores:
        return
    less = attrs.evolve(
        options,
        tasks=min(options.tasks, scenario.tasks or options.tasks),
        kills=min(options.kills, scenario.kills or options.kills),
    )
    for kinds in [(kind,) for kind in less.kinds] if scenario.each_kind else [less.kinds]:
        yield attrs.evolve(less, kinds=kinds)


def tried(name: str, store: str, options: Options) -> Report:
    """Run one trial. Raises `Missing` if something that it needs is not here."""
    scenario = SCENARIOS[name]
    folder = Path(tempfile.mkdtemp(prefix="lifecycle-faults-"))
    with ExitStack() as exits:
        where = _disk(folder, scenario.disk, exits)
        there: Place = exits.enter_context(place(store, where, private=scenario.private))
        queue = {"max_interruptions": options.interruptions} if scenario.few else {}
        trial = exits.enter_context(on_trial(there, folder, options, lease=scenario.lease, **queue))
        started = time.monotonic()
        try:
            scenario.run(trial)
        except (AssertionError, StorageError) as error:  # what it waited for did not come; the rest is still to be seen
            trial.complain(str(error) or repr(error))
        seconds = time.monotonic() - started
        found = trial.audit()
        report = Report(
            name,
            there.kind,
            options.kinds,
            f"{trial.disturbances} {scenario.done}",
            seconds,
            found,
            trial.figures,
        )
    if not report.passed:
        return report._replace(logs=folder)
    shutil.rmtree(folder, ignore_errors=True)
    return report


def _disk(folder: Path, megabytes: int, exits: ExitStack) -> Path:
    if not megabytes:
        return folder
    small = outages.mounted(folder / "disk", megabytes)
    exits.callback(outages.unmount, small)
    return small
