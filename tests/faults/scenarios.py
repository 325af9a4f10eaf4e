"""All scenarios, their needs, and the run of a trial."""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import attrs
from faults import changed_files, outages, silences
from faults.audit import Audit
from faults.clocks import clocks
from faults.forks import forks
from faults.freeze import freeze
from faults.places import Place, place
from faults.poison import poison
from faults.storm import storm
from faults.ticks import ticks
from faults.trial import Options, Trial, open_trial
from faults.workflows import workflows

from lifecycle import StorageError
from lifecycle.consumer.consumer import WORKER_TYPES

__all__ = ["KINDS", "SCENARIOS", "Report", "Scenario", "planned", "run_trial"]

KINDS = tuple(kind for kind in ("thread", "process", "asyncio") if kind in WORKER_TYPES)
"""Default worker types: those that need no further package."""
SERVERS = frozenset({"postgres", "redis"})
INTERRUPTIONS = 10
"""Allowed interruptions of a task in scenarios that kill at random: a task may be hit several times."""


class Scenario(NamedTuple):
    """One kind of fault, with its needs."""

    run: Callable[[Trial], None]
    done: str
    """Name of the disturbances, in the plural."""
    lease: float = 1.5
    """Lease of the queue, in seconds."""
    stores: frozenset[str] = SERVERS | {"sqlite"}
    private: bool = False
    """True if the scenario needs a server of its own."""
    each_kind: bool = False
    """True for a trial of each worker type; else all types run together."""
    disk: int = 0
    """Size of the store's disk in megabytes; 0: no disk of its own."""
    tasks: int | None = None
    """Limit of tasks: the scenario takes time for other reasons."""
    kills: int | None = None
    few: bool = False
    """True if tasks rest after few interruptions."""


SCENARIOS = {
    "storm": Scenario(storm, "kills"),
    "deaths": Scenario(storm, "kills", lease=600.0),
    "workflows": Scenario(workflows, "kills"),
    "ticks": Scenario(ticks, "kills", tasks=1000),
    "freeze": Scenario(freeze, "freezes", each_kind=True, kills=4),
    "restart": Scenario(outages.restart, "restarts", lease=5.0, stores=SERVERS, private=True),
    "cut": Scenario(outages.cut, "cuts", lease=5.0, stores=SERVERS),
    "answers": Scenario(outages.lost_answers, "lost answers", lease=5.0, stores=SERVERS),
    "clocks": Scenario(clocks, "host with a wrong clock", lease=4.0, stores=SERVERS, tasks=400),
    "disk": Scenario(
        outages.disk, "times without room", lease=5.0, stores=frozenset({"sqlite"}), disk=16, tasks=400, kills=4
    ),
    "silence": Scenario(
        silences.silence, "outages longer than the lease", lease=2.0, private=True, each_kind=True, kills=2
    ),
    "full": Scenario(
        silences.full,
        "times without memory",
        lease=2.0,
        stores=frozenset({"redis"}),
        private=True,
        each_kind=True,
        kills=2,
    ),
    "forks": Scenario(forks, "forks", lease=5.0, each_kind=True, tasks=400),
    "files": Scenario(
        changed_files.files,
        "files removed or replaced",
        lease=5.0,
        stores=frozenset({"sqlite"}),
        each_kind=True,
        tasks=400,
        kills=4,
    ),
    "logs": Scenario(changed_files.logs, "logs removed", lease=5.0, stores=frozenset({"sqlite"})),
    "poison": Scenario(poison, "worker deaths", each_kind=True, tasks=400, kills=3, few=True),
}


class Report(NamedTuple):
    """Result of a trial: its audit and its figures."""

    scenario: str
    store: str
    kinds: tuple[str, ...]
    disturbances: str
    seconds: float
    audit: Audit
    figures: dict[str, int]
    logs: Path | None = None
    """Folder with the logs of the consumers, if there are faults."""

    @property
    def passed(self) -> bool:
        """True without any fault."""
        return not self.audit.faults


def planned(name: str, store: str, options: Options) -> Iterator[Options]:
    """Yield the options of each trial of a scenario on a store; none if the scenario does not fit the store."""
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


def run_trial(name: str, store: str, options: Options) -> Report:
    """Run one trial. Raises `Missing` if a program that the trial needs is not installed."""
    scenario = SCENARIOS[name]
    folder = Path(tempfile.mkdtemp(prefix="lifecycle-faults-"))
    with ExitStack() as exits:
        where = _disk(folder, scenario.disk, exits)
        there: Place = exits.enter_context(place(store, where, private=scenario.private))
        queue = {"max_interruptions": options.interruptions if scenario.few else INTERRUPTIONS}
        trial = exits.enter_context(open_trial(there, folder, options, lease=scenario.lease, **queue))
        started = time.monotonic()
        try:
            scenario.run(trial)
        except (AssertionError, StorageError) as error:  # a wait has timed out; the audit still follows
            trial.add_problem(str(error) or repr(error))
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
