"""Consumers of a trial, as processes that are started, killed, frozen and stopped."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import psutil
from support.processes import PATIENCE, environment, until

__all__ = ["PROGRAMS", "ConsumerProcess", "Consumers"]

PROGRAMS = Path(__file__).parent / "programs"
AWAY, BACK = "the store cannot be used", "the store can be used again"
UP = " workers on queue "
REFUSED = ("another worker has taken it over", "was taken over by another worker")
"""Texts of the log for a refused outcome."""


class ConsumerProcess:
    """One consumer of a trial."""

    def __init__(self, number: int, kind: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.number, self.kind, self.process, self.log = number, kind, process, log

    @property
    def alive(self) -> bool:
        """True until the process has ended."""
        return self.process.poll() is None

    @property
    def up(self) -> bool:
        """True once the consumer runs and handles signals."""
        return bool(self.count_in_log(UP))

    def all(self) -> list[psutil.Process]:
        """Return the living processes: the consumer first, then its workers."""
        try:
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """Kill the consumer with SIGKILL, but not its workers."""
        self.process.kill()
        self.process.wait()

    def count_in_log(self, *texts: str) -> int:
        """Return how often these texts are in the log."""
        log = self.log.read_text(errors="replace")
        return sum(log.count(text) for text in texts)

    def freeze(self, file: str | None = None) -> None:
        """Stop all processes with SIGSTOP, at a moment when none holds a lock of the SQLite file `file`."""
        while True:
            for one in self.all():
                one.send_signal(signal.SIGSTOP)
            until(lambda: all(one.status() == psutil.STATUS_STOPPED for one in self.all()), "the stop")
            if file is None or _free(file):
                return
            self.thaw()

    def thaw(self) -> None:
        """Continue all processes with SIGCONT."""
        for one in self.all():
            one.send_signal(signal.SIGCONT)


def _free(file: str) -> bool:
    """Return whether this SQLite file can be written now."""
    db = sqlite3.connect(file, timeout=0.1, isolation_level=None)
    try:
        db.execute("begin immediate")
        db.execute("rollback")
    except sqlite3.OperationalError:
        return False
    finally:
        db.close()
    return True


class Consumers:
    """All consumers of a trial, also those that have ended."""

    def __init__(self, folder: Path, setting: dict[str, object]) -> None:
        """`setting`: of `programs/work.py`."""
        self.folder, self.setting = folder, setting
        self.members: list[ConsumerProcess] = []

    def start(
        self, kind: str = "thread", workers: int = 2, *, shift: float | None = None, **setting: object
    ) -> ConsumerProcess:
        """Start a consumer; its clock is off by `shift` seconds."""
        number = len(self.members) + 1
        log = self.folder / f"consumer-{number}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "lifecycle", "run", "work:queue", "-k", kind, "-w", str(workers)],
                env=process_environment(self.setting | setting, shift) | {"FAULTS_MEMBER": str(number)},
                cwd=self.folder,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.members.append(ConsumerProcess(number, kind, process, log))
        return self.members[-1]

    @property
    def alive(self) -> list[ConsumerProcess]:
        """Consumers that have not ended."""
        return [member for member in self.members if member.alive]

    def count_in_log(self, *texts: str) -> int:
        """Return how often these texts are in the logs."""
        return sum(member.count_in_log(*texts) for member in self.members)

    def drain(self) -> list[str]:
        """Stop all consumers once their tasks have finished; return the faults of their ends."""
        faults = []
        stopping = self.alive
        for member in stopping:
            until(lambda member=member: member.up or not member.alive, f"consumer {member.number}")
            member.process.send_signal(signal.SIGINT)
        for member in stopping:
            try:
                code = member.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                faults.append(f"consumer {member.number} ({member.kind}) does not end")
            else:
                faults += [f"consumer {member.number} ({member.kind}) ended with {code}"] if code else []
        return faults

    def tracebacks(self) -> list[str]:
        """Return a sentence for each consumer that has logged a traceback, other than that of a task."""
        return [
            f"consumer {member.number} ({member.kind}) logged a traceback: {excerpt}"
            for member in self.members
            if (excerpt := _excerpt(member.log))
        ]

    def close(self) -> None:
        """Kill all consumers and their workers."""
        for member in self.members:
            try:
                os.killpg(member.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            member.process.wait()


def _excerpt(log: Path) -> str:
    """Return the last line of the first traceback in a log, without those of tasks; ``""`` if there is none."""
    records = re.split(r"^(?=\d{4}-\d\d-\d\d )", log.read_text(errors="replace"), flags=re.MULTILINE)
    text = "".join(record for record in records if " lifecycle.task: " not in record.partition("\n")[0])
    _, found, rest = text.partition("Traceback")
    if not found:
        return ""
    return next((line.strip() for line in rest.splitlines()[1:] if line and not line.startswith((" ", "\t"))), "?")


def process_environment(setting: dict[str, object], shift: float | None = None) -> dict[str, str]:
    """Return the environment of a process that imports `programs/work.py`, with its clock off by `shift` seconds."""
    env = environment(FAULTS=json.dumps(setting))
    paths = [str(PROGRAMS), *([str(PROGRAMS / "shifted")] if shift is not None else []), env["PYTHONPATH"]]
    return env | {"PYTHONPATH": os.pathsep.join(paths), "CLOCK_SHIFT": str(shift or 0.0)}
