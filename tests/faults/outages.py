"""The store goes away and comes back: its server is restarted, its connections are cut, an answer is lost, a disk is full."""

import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from faults.crew import AWAY, BACK
from faults.places import Missing
from faults.proxy import MANNERS, Proxy
from faults.trial import LOOK, Trial, pause
from support.processes import until

from lifecycle import StorageFull, TaskQueue

__all__ = ["cut", "disk", "lost_answers", "restart"]

REFUSALS = 3
"""After how many of them in a row a disk is taken for full."""


class Interference:
    """Does something to the store each time that a part of the work is done, while more of it is asked for."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        options = trial.options
        self._moments = sorted(trial.chance.uniform(0.05, 0.9) * options.tasks for _ in range(options.kills))

    def due(self) -> bool:
        """Is it time?"""
        if not self._moments or self._trial.begun() < self._moments[0]:
            return False
        self._moments.pop(0)
        self._trial.disturbances += 1
        return True

    def check(self) -> None:
        """Say so if there was less of it than was asked for."""
        if self._moments:
            self._trial.complain(f"only {self._trial.disturbances} of {self._trial.options.kills} were made")


def _under_load(trial: Trial, act, queue: TaskQueue | None = None) -> None:
    """Consumers work, a producer goes on, and `act` is called at chance's moments."""
    options = trial.options
    interference = Interference(trial)

    def look() -> None:
        if interference.due():
            act()

    for kind in trial.crowd():
        trial.crew.hire(kind, options.workers)
    # One that finds no store as it starts says so, and ends: it is told of its mistakes at once.
    until(lambda: all(member.up for member in trial.crew.members), "the consumers")
    rest = trial.mix(options.tasks)
    while rest:
        size = trial.chance.randint(1, 40)
        trial.enqueue(rest[:size], queue)
        rest = rest[size:]
        if trial.begun() < options.tasks - len(rest) - 200:  # not all at once: it is to go on while the store is away
            pause(LOOK)
        look()
    trial.settle(look)
    interference.check()


def _goes_home(trial: Trial, outages: int | None) -> None:
    """Look at what all have said of the outages, and send them home."""
    members = trial.crew.members
    try:
        until(lambda: all(member.said(BACK) >= member.said(AWAY) for member in members), "the good news")
    except AssertionError as error:
        trial.complain(str(error))
    trial.complaints += trial.crew.drain()
    for member in members:
        away, back = member.said(AWAY), member.said(BACK)
        trial.count("outages told", away)
        if away != back:
            trial.complain(f"consumer {member.number} said {away} times that the store is away, {back} that it is back")
        voices = trial.options.workers + 1 if member.kind == "process" else 1  # each process speaks for itself
        if outages is not None and away > outages * voices:
            trial.complain(f"consumer {member.number} told of {away} outages, there were {outages}")


def restart(trial: Trial) -> None:
    """The server is restarted under load, politely and not: consumers wait, say so once, and go on."""
    ways = trial.place.ways

    def act() -> None:
        way = ways[trial.disturbances % len(ways)]
        trial.place.restart(way)
        trial.count(f"restarts ({way})")

    _under_load(trial, act)
    _goes_home(trial, trial.disturbances)


def cut(trial: Trial) -> None:
    """All connections to the server are ended under load, at once."""
    _under_load(trial, lambda: trial.count("connections cut", trial.place.cut()))
    _goes_home(trial, None)


def lost_answers(trial: Trial) -> None:
    """A request reaches the server, and its answer is lost, for consumers and the producer alike.

    Whether it happened is unknown then: nothing may be lost for it, and nothing be run twice without a word.
    """
    target = urlsplit(trial.place.url)
    proxy = Proxy(target.hostname, target.port)
    user = f"{target.username}@" if target.username else ""
    url = target._replace(netloc=f"{user}127.0.0.1:{proxy.port}").geturl()
    if trial.place.kind == "postgres":  # in clear, so that one sees what is a commit
        url += "?sslmode=disable"
    trial.setting["url"] = url
    queue = TaskQueue(url, name=trial.queue.name, lease=trial.lease)
    try:
        _under_load(trial, lambda: proxy.cut_next(trial.chance.choice(MANNERS), trial.chance.random() < 0.7), queue)
        _goes_home(trial, None)
    finally:
        queue.close()
        proxy.close()
    for manner, number in proxy.made.items():
        trial.count(manner, number)


def mounted(folder: Path, megabytes: int) -> Path:
    """A small disk. Raises `Missing`."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"no small disk can be mounted: {done.stderr.strip()}")
    return folder


def unmount(folder: Path) -> None:
    """Let go of it, even if somebody still looks at it."""
    subprocess.run(["umount", "--lazy", str(folder)], check=False)


def disk(trial: Trial) -> None:
    """The disk is full while consumers are at work; there is room again later, each time.

    Producers are refused, and told why; consumers keep what they have, say so once, and go on.
    """
    options, folder = trial.options, Path(urlsplit(trial.place.url).path.removeprefix("/")).parent
    for kind in trial.crowd():
        trial.crew.hire(kind, options.workers)
    trial.enqueue(trial.mix(options.tasks // 2))
    for _ in range(options.kills):
        _without_room(trial, folder / "ballast")
        trial.enqueue(trial.mix(options.tasks // (2 * options.kills)))
        trial.settle()
    _goes_home(trial, options.kills)


def _without_room(trial: Trial, ballast: Path) -> None:
    """Fill the disk while tasks run, see who is refused, and make room again."""
    trial.disturbances += 1
    before = [member.said(AWAY) for member in trial.crew.members]
    trial.gate.unlink(missing_ok=True)
    held = [trial.work.linger.s() for _ in range(trial.options.workers)]
    trial.enqueue(held)
    ids = {task.id for task in held}
    until(lambda: ids <= {line.task for line in trial.lines() if line.what == "begin"}, "the tasks that wait")
    _fill(ballast)
    refused = 0
    while refused < REFUSALS:  # until the log of the database is full, too
        task = trial.work.steady.s(0.0, "x" * 20_000)
        try:
            trial.queue.enqueue(task)
        except StorageFull:
            refused += 1
            if trial.queue.storage.get(task.id) is not None:
                trial.complain(f"task {task.id} was refused, and is there")
            pause(LOOK)
        else:
            trial.wanted[task.id] = task.name
    trial.count("enqueues refused", refused)
    trial.gate.touch()  # now they have something to store
    until(
        lambda: any(member.said(AWAY) > count for member, count in zip(trial.crew.members, before, strict=True)),
        "a consumer that says that there is no room",
    )
    ballast.unlink()


def _fill(file: Path) -> None:
    """Write until there is no room."""
    with file.open("wb", buffering=0) as ballast:
        for size in (65_536, 4096):
            try:
                while True:
                    ballast.write(bytes(size))
            except OSError:
                continue
