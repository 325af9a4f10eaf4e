"""The consumers of a trial: real processes, which are hired, killed, frozen and sent home."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import psutil
from support.processes import PATIENCE, environment, until

__all__ = ["PROGRAMS", "Crew", "Member"]

PROGRAMS = Path(__file__).parent / "programs"
AWAY, BACK = "the store cannot be used", "the store can be used again"
UP = " workers on queue "
REFUSED = ("another worker has taken it over", "was taken over by another worker")
"""What a consumer logs of an outcome that came too late."""


class Member:
    """A consumer."""

    def __init__(self, number: int, kind: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.number, self.kind, self.process, self.log = number, kind, process, log

    @property
    def alive(self) -> bool:
        """Has it not ended?"""
        return self.process.poll() is None

    @property
    def up(self) -> bool:
        """Has it begun, and does it heed signals?"""
        return bool(self.said(UP))

    def all(self) -> list[psutil.Process]:
        """Its processes, its own first, as far as they live."""
        try:
            first = psutil.Process(self.process.pid)
            return [first, *first.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """`kill -9`: of the consumer, not of its workers."""
        self.process.kill()
        self.process.wait()

    def said(self, *texts: str) -> int:
        """How often one of these texts is in its log."""
        log = self.log.read_text(errors="replace")
        return sum(log.count(text) for text in texts)

    def freeze(self, file: str | None = None) -> None:
        """``SIGSTOP`` for all its processes, at a moment when they do not keep `file` locked: nobody else could write."""
        while True:
            for one in self.all():
                one.send_signal(signal.SIGSTOP)
            until(lambda: all(one.status() == psutil.STATUS_STOPPED for one in self.all()), "the stop")
            if file is None or _free(file):
                return
            self.thaw()

    def thaw(self) -> None:
        """``SIGCONT``."""
        for one in self.all():
            one.send_signal(signal.SIGCONT)


def _free(file: str) -> bool:
    """Can one write to this SQLite file?"""
    db = sqlite3.connect(file, timeout=0.1, isolation_level=None)
    try:
        db.execute("begin immediate")
        db.execute("rollback")
    except sqlite3.OperationalError:
        return False
    finally:
        db.close()
    return True


class Crew:
    """All consumers that a trial has had."""

    def __init__(self, folder: Path, setting: dict[str, object]) -> None:
        """`setting`: what `programs/work.py` is told."""
        self.folder, self.setting = folder, setting
        self.members: list[Member] = []

    def hire(self, kind: str = "thread", workers: int = 2, *, shift: float | None = None, **setting: object) -> Member:
        """Start a consumer; its clock is off by `shift` seconds."""
        number = len(self.members) + 1
        log = self.folder / f"consumer-{number}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "lifecycle", "run", "work:queue", "-k", kind, "-w", str(workers)],
                env=told(self.setting | setting, shift) | {"FAULTS_MEMBER": str(number)},
                cwd=self.folder,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.members.append(Member(number, kind, process, log))
        return self.members[-1]

    @property
    def alive(self) -> list[Member]:
        """Those that have not ended."""
        return [member for member in self.members if member.alive]

    def said(self, *texts: str) -> int:
        """How often one of these texts is in anybody's log."""
        return sum(member.said(*texts) for member in self.members)

    def drain(self) -> list[str]:
        """Send all home once they have finished; what is wrong with how they went."""
        faults = []
        going = self.alive
        for member in going:
            until(lambda member=member: member.up or not member.alive, f"consumer {member.number}")
            member.process.send_signal(signal.SIGINT)
        for member in going:
            try:
                code = member.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                faults.append(f"consumer {member.number} ({member.kind}) does not end")
            else:
                faults += [f"consumer {member.number} ({member.kind}) ended with {code}"] if code else []
        return faults

    def tracebacks(self) -> list[str]:
        """Consumers that have logged what nobody has thought of."""
        return [
            f"consumer {member.number} ({member.kind}) logged a traceback: {_excerpt(member.log)}"
            for member in self.members
            if member.said("Traceback")
        ]

    def close(self) -> None:
        """Nobody is left, and nobody's children."""
        for member in self.members:
            try:
                os.killpg(member.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            member.process.wait()


def _excerpt(log: Path) -> str:
    """The first traceback's last line."""
    rest = log.read_text(errors="replace").partition("Traceback")[2].splitlines()[1:]
    return next((line.strip() for line in rest if line and not line.startswith((" ", "\t"))), "?")


def told(setting: dict[str, object], shift: float | None = None) -> dict[str, str]:
    """The environment of a process that imports `programs/work.py`."""
    env = environment(FAULTS=json.dumps(setting))
    paths = [str(PROGRAMS), *([str(PROGRAMS / "shifted")] if shift is not None else []), env["PYTHONPATH"]]
    return env | {"PYTHONPATH": os.pathsep.join(paths), "CLOCK_SHIFT": str(shift or 0.0)}
