"""What a trigger costs: the compiled machine of the table beside the stock `transitions` one and a plain dictionary.

    python tests/benchmarks/machine.py [--models 3000] [--rounds 5]

The life of a task, queued → executing → complete. Within a round the machines take turns; the medians are printed.
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
    took: dict[str, list[float]] = {name: [] for name in machines}
    for _ in range(options.rounds):
        for name, (start, complete) in machines.items():
            models = [Model() for _ in range(options.models)]
            began = time.perf_counter()
            for model in models:
                start(model)
                complete(model)
            took[name].append((time.perf_counter() - began) / (2 * options.models) * 1e6)
    medians = {name: statistics.median(times) for name, times in took.items()}
    for name, microseconds in medians.items():
        print(
            f"{name:18} {microseconds:7.3f} us a trigger   stock / this: {medians['stock transitions'] / microseconds:6.1f}"
        )


if __name__ == "__main__":
    main()
