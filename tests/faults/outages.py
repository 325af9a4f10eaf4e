"""Scenarios: the server restarts, its connections are cut, an answer is lost, the disk is full."""

import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from faults.consumer_processes import AWAY, BACK
from faults.places import Missing
from faults.proxy import MANNERS, Proxy
from faults.trial import LOOK, Trial, pause
from support.processes import until

from lifecycle import StorageFull, TaskQueue

__all__ = ["cut", "disk", "lost_answers", "restart", "start_consumers", "stop_and_check_logs", "under_load"]

REFUSALS = 3
"""Count of refused enqueues in a row after which the disk counts as full."""


class Interference:
    """Decides when to disturb the store: at random counts of tasks begun."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        options = trial.options
        self._moments = sorted(trial.rng.uniform(0.05, 0.9) * options.tasks for _ in range(options.kills))

    def due(self) -> bool:
        """Return True if the next disturbance is due."""
        if not self._moments or self._trial.begun() < self._moments[0]:
            return False
        self._moments.pop(0)
        self._trial.disturbances += 1
        return True

    def check(self) -> None:
        """Report a problem if there were fewer disturbances than planned."""
        if self._moments:
            self._trial.add_problem(f"only {self._trial.disturbances} of {self._trial.options.kills} were made")


def start_consumers(trial: Trial) -> None:
    """Start the consumers, and wait until they run: a consumer without a store at its start ends with an error."""
    for kind in trial.consumer_kinds():
        trial.consumers.start(kind, trial.options.workers)
    until(lambda: all(member.up for member in trial.consumers.members), "the consumers")


def under_load(trial: Trial, act, queue: TaskQueue | None = None) -> None:
    """Enqueue tasks, and call `act` at random moments while consumers run them."""
    options = trial.options
    interference = Interference(trial)

    def look() -> None:
        if interference.due():
            act()

    rest = trial.mix(options.tasks)
    while rest:
        size = trial.rng.randint(1, 40)
        trial.enqueue(rest[:size], queue)
        rest = rest[size:]
        if (
            trial.begun() < options.tasks - len(rest) - 200
        ):  # in parts: the producer must go on while the store is unavailable
            pause(LOOK)
        look()
    trial.settle(look)
    interference.check()


def stop_and_check_logs(trial: Trial, outages: int | None) -> None:
    """Stop the consumers, and compare the outages in their logs with the real ones (None: not known)."""
    members = trial.consumers.members
    try:
        until(
            lambda: all(member.count_in_log(BACK) >= member.count_in_log(AWAY) for member in members),
            "the end of the outages in the logs",
        )
    except AssertionError as error:
        trial.add_problem(str(error))
    trial.problems += trial.consumers.drain()
    for member in members:
        away, back = member.count_in_log(AWAY), member.count_in_log(BACK)
        trial.count("outages logged", away)
        if away != back:
            trial.add_problem(
                f"consumer {member.number} logged {away} outages of the store, and {back} ends of outages"
            )
        processes = trial.options.workers + 1 if member.kind == "process" else 1  # each process logs for itself
        if outages is not None and away > outages * processes:
            trial.add_problem(f"consumer {member.number} logged {away} outages, there were {outages}")


def restart(trial: Trial) -> None:
    """Restart the server under load, with and without a shutdown: consumers wait, log that once, and go on."""
    ways = trial.place.ways

    def act() -> None:
        way = ways[trial.disturbances % len(ways)]
        trial.place.restart(way)
        trial.count(f"restarts ({way})")

    start_consumers(trial)
    under_load(trial, act)
    stop_and_check_logs(trial, trial.disturbances)


def cut(trial: Trial) -> None:
    """End all connections to the server at once, under load."""
    start_consumers(trial)
    under_load(trial, lambda: trial.count("connections cut", trial.place.cut()))
    stop_and_check_logs(trial, None)


def lost_answers(trial: Trial) -> None:
    """Lose requests or their answers, of consumers and of the producer.

    The client cannot know whether the request took effect: no task may be lost, and none may run twice unexplained.
    """
    target = urlsplit(trial.place.url)
    proxy = Proxy(target.hostname, target.port)
    user = f"{target.username}@" if target.username else ""
    url = target._replace(netloc=f"{user}127.0.0.1:{proxy.port}").geturl()
    if trial.place.kind == "postgres":  # unencrypted, so that the proxy can recognize a commit
        url += "?sslmode=disable"
    trial.setting["url"] = url
    queue = TaskQueue(url, name=trial.queue.name, lease=trial.lease)
    try:
        start_consumers(trial)
        under_load(trial, lambda: proxy.cut_next(trial.rng.choice(MANNERS), trial.rng.random() < 0.7), queue)
        stop_and_check_logs(trial, None)
    finally:
        queue.close()
        proxy.close()
    for manner, number in proxy.made.items():
        trial.count(manner, number)


def mounted(folder: Path, megabytes: int) -> Path:
    """Mount a small disk, and return its folder. Raises `Missing`."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"no small disk can be mounted: {done.stderr.strip()}")
    return folder


def unmount(folder: Path) -> None:
    """Unmount the disk, even while a process uses it."""
    subprocess.run(["umount", "--lazy", str(folder)], check=False)


def disk(trial: Trial) -> None:
    """Fill the disk while consumers run, and make room again, several times.

    Producers get an error; consumers keep their outcomes, log the outage once, and go on.
    """
    options, folder = trial.options, Path(urlsplit(trial.place.url).path.removeprefix("/")).parent
    for kind in trial.consumer_kinds():
        trial.consumers.start(kind, options.workers)
    trial.enqueue(trial.mix(options.tasks // 2))
    for _ in range(options.kills):
        _without_room(trial, folder / "ballast")
        trial.enqueue(trial.mix(options.tasks // (2 * options.kills)))
        trial.settle()
    stop_and_check_logs(trial, options.kills)


def _without_room(trial: Trial, ballast: Path) -> None:
    """Fill the disk while tasks run, check the refused enqueues, and make room again."""
    trial.disturbances += 1
    before = [member.count_in_log(AWAY) for member in trial.consumers.members]
    trial.release_file.unlink(missing_ok=True)
    held = [trial.work.linger.s() for _ in range(trial.options.workers)]
    trial.enqueue(held)
    ids = {task.id for task in held}
    until(
        lambda: ids <= {line.task for line in trial.lines() if line.what == "begin"}, "the begin of the waiting tasks"
    )
    _fill(ballast)
    refused = 0
    while refused < REFUSALS:  # until the log of the database cannot grow either
        task = trial.work.steady.s(0.0, "x" * 20_000)
        try:
            trial.queue.enqueue(task)
        except StorageFull:
            refused += 1
            if trial.queue.storage.get(task.id) is not None:
                trial.add_problem(f"task {task.id} was refused, and is there")
            pause(LOOK)
        else:
            trial.wanted[task.id] = task.name
    trial.count("enqueues refused", refused)
    trial.release_file.touch()  # now the tasks end, and have outcomes to store
    until(
        lambda: any(
            member.count_in_log(AWAY) > count for member, count in zip(trial.consumers.members, before, strict=True)
        ),
        "the log line of a consumer without room",
    )
    ballast.unlink()


def _fill(file: Path) -> None:
    """Write to a file until the disk is full."""
    with file.open("wb", buffering=0) as ballast:
        for size in (65_536, 4096):
            try:
                while True:
                    ballast.write(bytes(size))
            except OSError:
                continue
