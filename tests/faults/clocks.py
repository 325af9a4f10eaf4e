"""Two hosts whose clocks are a minute apart, and a producer on each."""

import subprocess
import sys

from faults.consumer_processes import process_environment
from faults.trial import Trial

from lifecycle.core.table import INTERRUPTED

__all__ = ["clocks"]

APART = 60.0
"""Seconds between the clocks of the hosts."""
AHEAD = -2
"""Member number of the producer whose clock is ahead."""
DELAY = 1.0
LONGER = 1.1
"""Duration of some tasks, in leases."""
LATE = 5.0
"""Seconds that a scheduled task may be late on a busy machine."""


def clocks(trial: Trial) -> None:
    """Run consumers on both hosts: no attempt is interrupted, and no scheduled task is early or a minute late."""
    options = trial.options
    shifts = (0.0, APART)
    for number, kind in enumerate(trial.consumer_kinds()):
        trial.consumers.start(kind, options.workers, shift=shifts[number % 2])
    trial.enqueue([trial.work.steady.s(trial.lease * LONGER) for _ in range(2)])  # one for each host, or nearly always
    producers = [
        subprocess.Popen(
            [sys.executable, "-m", "produce", str(options.seed + number), str(options.tasks // 2), str(DELAY)],
            env=process_environment(trial.setting, shift) | {"FAULTS_MEMBER": str(-1 - number)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, shift in enumerate(shifts)
    ]
    for producer in producers:
        printed, _ = producer.communicate()
        trial.wanted |= dict(line.split() for line in printed.splitlines())
        if producer.returncode:
            trial.add_problem(f"a producer ended with {producer.returncode}")
    trial.disturbances = 1
    trial.settle(patience=2 * APART)
    trial.problems += trial.consumers.drain()
    _judge(trial)


def _judge(trial: Trial) -> None:
    histories = [trial.queue.history(task_id) for task_id in trial.wanted]
    if taken := sum(record.state == INTERRUPTED for history in histories for record in history):
        trial.add_problem(f"{taken} attempts were interrupted, though no consumer has died")
    lines = trial.lines()
    began = {line.task: line.at for line in reversed(lines) if line.what == "begin"}
    for line in lines:
        if line.what == "scheduled" and line.task in began:
            waited = began[line.task] - line.at
            host = "that is ahead" if line.member == AHEAD else "that is right"
            if waited < DELAY - 0.2:
                trial.count(f"too early, by a clock {host}")
            elif waited > DELAY + LATE:
                trial.count(f"too late, by a clock {host}")
    if off := [f"{number} {what}" for what, number in trial.figures.items() if what.startswith("too")]:
        trial.add_problem(f"scheduled tasks: {', '.join(off)}")
