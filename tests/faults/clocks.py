"""Two hosts whose clocks are a minute apart, and a producer on each."""

import subprocess
import sys

from faults.crew import told
from faults.trial import Trial

from lifecycle.core.table import INTERRUPTED

__all__ = ["clocks"]

APART = 60.0
"""Seconds."""
AHEAD = -2
"""The number that the producer whose clock is ahead has among the members."""
DELAY = 1.0
LONGER = 1.1
"""Some tasks run so many times as long as a lease."""
LATE = 5.0
"""Seconds that a task for later may come late, on a machine that is busy."""


def clocks(trial: Trial) -> None:
    """Nobody dies, so nothing is interrupted; a task for later comes neither too early nor a minute too late."""
    options = trial.options
    shifts = (0.0, APART)
    for number, kind in enumerate(trial.crowd()):
        trial.crew.hire(kind, options.workers, shift=shifts[number % 2])
    trial.enqueue([trial.work.steady.s(trial.lease * LONGER) for _ in range(2)])  # one for each host, or nearly always
    producers = [
        subprocess.Popen(
            [sys.executable, "-m", "produce", str(options.seed + number), str(options.tasks // 2), str(DELAY)],
            env=told(trial.setting, shift) | {"FAULTS_MEMBER": str(-1 - number)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, shift in enumerate(shifts)
    ]
    for producer in producers:
        said, _ = producer.communicate()
        trial.wanted |= dict(line.split() for line in said.splitlines())
        if producer.returncode:
            trial.complain(f"a producer ended with {producer.returncode}")
    trial.disturbances = 1
    trial.settle(patience=2 * APART)
    trial.complaints += trial.crew.drain()
    _judge(trial)


def _judge(trial: Trial) -> None:
    histories = [trial.queue.history(task_id) for task_id in trial.wanted]
    if taken := sum(record.state == INTERRUPTED for history in histories for record in history):
        trial.complain(f"{taken} attempts were taken for lost, though nobody has died")
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
        trial.complain(f"tasks for later: {', '.join(off)}")
