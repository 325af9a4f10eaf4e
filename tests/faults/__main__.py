"""Faults injected into real consumers and stores: kills, freezes, outages, lost connections, wrong clocks.

``python tests/faults`` runs every scenario on every store of this machine, and prints the figures; exit code 1 if
a task was lost, illegal, finished twice, or unexplained. ``--write`` writes the figures into the documentation.
"""

import argparse
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from faults.figures import PAGE, page_with, table, text
from faults.places import STORES, Missing
from faults.scenarios import KINDS, SCENARIOS, planned, run_trial
from faults.trial import Options
from rich.console import Console

from lifecycle.consumer.consumer import WORKER_TYPES

SHOWN = 20
"""Number of faults of a trial that are printed."""


def main() -> int:
    """Run the trials that the command line names; return the exit code."""
    parser = argparse.ArgumentParser(prog="python tests/faults", description=__doc__.splitlines()[0])
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)}; default: all")
    parser.add_argument(
        "--store", action="append", help=f"{', '.join(STORES)}, or a URL; may be repeated; default: all"
    )
    parser.add_argument(
        "--kind",
        action="append",
        choices=WORKER_TYPES,
        help=f"type of workers; may be repeated; default: {', '.join(KINDS)}",
    )
    parser.add_argument("--tasks", type=int, default=2000, help="number of tasks in a trial")
    parser.add_argument("--kills", type=int, default=8, help="number of kills (or freezes, restarts, cuts) in a trial")
    parser.add_argument(
        "--consumers", type=int, default=3, help="number of consumers at once; at least one of each kind"
    )
    parser.add_argument("--workers", type=int, default=4, help="slots of each consumer")
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().randrange(10**6), help="of the random generator"
    )
    parser.add_argument("--write", action="store_true", help="write the figures into the documentation")
    given = parser.parse_args()
    if unknown := [name for name in given.scenarios if name not in SCENARIOS]:
        parser.error(f"there is no scenario {', '.join(unknown)}: there are {', '.join(SCENARIOS)}")
    if unknown := [one for one in given.store or () if "://" not in one and one not in STORES]:
        parser.error(f"there is no store {', '.join(unknown)}: there are {', '.join(STORES)}, and URLs")
    options = Options(given.tasks, given.kills, given.seed, tuple(given.kind or KINDS), given.consumers, given.workers)
    console = Console(width=None if sys.stdout.isatty() else 260)
    console.print(f"seed {given.seed}")
    reports = []
    for name in given.scenarios or SCENARIOS:
        for store in given.store or STORES:
            for one in planned(name, store, options):
                what = f"{name} on {store.partition(':')[0]}, {', '.join(one.kinds)} workers"
                try:
                    report = run_trial(name, store, one)
                except Missing as missing:
                    console.print(f"skipped: {what}: {missing}", markup=False)
                    continue
                reports.append(report)
                console.print(f"{'passed' if report.passed else 'FAILED'}: {what}, {report.seconds:.0f} s")
                for fault in report.audit.faults[:SHOWN]:
                    console.print(f"  {fault}", markup=False)
                if report.logs:
                    console.print(f"  {len(report.audit.faults)} faults in all; logs of the consumers: {report.logs}")
    console.print(table(reports))
    if given.write:
        PAGE.write_text(page_with(PAGE.read_text(), text(reports, given.seed)))
    return int(not all(report.passed for report in reports))


if __name__ == "__main__":
    sys.exit(main())
