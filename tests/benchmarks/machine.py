"""Measures the time of a trigger: the table's compiled machine, the stock machine of `transitions`, and a dictionary.

    python tests/benchmarks/machine.py [--models 3000] [--rounds 5]

Each model goes the path of a task: queued → executing → complete. The machines take turns in each round; the medians of
the rounds are printed.
"""

import argparse
import statistics
import time
from collections.abc import Callable

from transitions import Machine

from lifecycle import LIFECYCLE


class Model:
    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state = LIFECYCLE.initial.name


def dictionary() -> tuple[Callable[[Model], object], Callable[[Model], object]]:
    table = {(row.source.name, row.trigger): row.target.name for row in LIFECYCLE.transitions if row.source}

    def fire(model: Model, trigger: str) -> None:
        model.state = table[model.state, trigger]

    return (lambda model: fire(model, "start")), (lambda model: fire(model, "complete"))


def compiled() -> tuple[Callable[[Model], object], Callable[[Model], object]]:
    triggers = LIFECYCLE.machine().triggers
    return triggers["start"], triggers["complete"]


def stock() -> tuple[Callable[[Model], object], Callable[[Model], object]]:
    rows = [[row.trigger, row.source.name, row.target.name] for row in LIFECYCLE.transitions if row.source]
    states = [state.name for state in LIFECYCLE.states]
    machine = Machine(None, states, LIFECYCLE.initial.name, rows, auto_transitions=False)
    return machine.events["start"].trigger, machine.events["complete"].trigger


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    machines = {"dictionary": dictionary(), "compiled": compiled(), "stock transitions": stock()}
    microseconds: dict[str, list[float]] = {name: [] for name in machines}
    for _ in range(options.rounds):
        for name, (start, complete) in machines.items():
            models = [Model() for _ in range(options.models)]
            started_at = time.perf_counter()
            for model in models:
                start(model)
                complete(model)
            microseconds[name].append((time.perf_counter() - started_at) / (2 * options.models) * 1e6)
    medians = {name: statistics.median(times) for name, times in microseconds.items()}
    for name, median in medians.items():
        print(f"{name:18} {median:7.3f} us per trigger   stock / this: {medians['stock transitions'] / median:6.1f}")


if __name__ == "__main__":
    main()
