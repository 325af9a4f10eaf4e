"""Stores of the trials, on servers of their own where a trial restarts the server or cuts its connections."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from sqlite3 import connect
from urllib.parse import urlsplit

import attrs
import psycopg
from support.postgres import SERVER, unavailable_reason
from support.processes import until

from lifecycle.storage import SCHEMES

__all__ = ["STORES", "Missing", "Place", "place"]


class Missing(Exception):
    """Raised if a program that a trial needs is not installed; the message names the program."""


@attrs.frozen
class Place:
    """Store of a trial, with the means to disturb it."""

    kind: str
    url: str
    cut: Callable[[], int] | None = None
    """Function that ends all connections; returns their number."""
    restart: Callable[[str], None] | None = None
    """Function that restarts the server in one of the `ways`."""
    ways: tuple[str, ...] = ()
    away: Callable[[], AbstractContextManager[None]] | None = None
    """Function that makes the store unusable within a context."""
    limit_memory: Callable[[int], None] | None = None
    """Function that sets the server's limit of memory in bytes, and lets it refuse what takes more; 0: no limit."""


def free_port() -> int:
    """Return a port on which no program listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def answers(port: int) -> bool:
    """Return whether a program listens on the port."""
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def sqlite(folder: Path, *, private: bool) -> Iterator[Place]:
    """Open an SQLite file. The store is away while another program holds the file's lock."""
    del private

    @contextmanager
    def away() -> Iterator[None]:
        db = connect(folder / "queue.db", timeout=60, isolation_level=None)
        try:
            db.execute("begin immediate")
            yield
        finally:
            db.close()

    yield Place("sqlite", f"sqlite:///{folder}/queue.db", away=away)


# PostgreSQL ----------------------------------------------------------------------------------------------------------


@contextmanager
def postgres(folder: Path, *, private: bool) -> Iterator[Place]:
    """Open a new database on the server of the tests or, if `private`, on a new server."""
    if private:
        with _postgres_server() as (server, restart, away), _database(server) as url:
            yield Place("postgres", url, lambda: _terminate(server, url), restart, ("fast", "immediate"), away)
    else:
        if reason := unavailable_reason():
            raise Missing(reason)
        with _database(SERVER) as url:
            yield Place("postgres", url, lambda: _terminate(SERVER, url))


@contextmanager
def _database(server: str) -> Iterator[str]:
    name = f"lifecycle_faults_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as db:
        db.execute(f"create database {name} template template0 encoding 'UTF8'")
    try:
        yield urlsplit(server)._replace(path=f"/{name}").geturl()
    finally:
        with psycopg.connect(server, autocommit=True) as db:
            db.execute(f"drop database {name} with (force)")


def _terminate(server: str, url: str) -> int:
    ends = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = %s"
    with psycopg.connect(server, autocommit=True) as db:
        ((count,),) = db.execute(ends, [urlsplit(url).path.strip("/")]).fetchall()
    return count


@contextmanager
def _postgres_server() -> Iterator[tuple[str, Callable[[str], None], Callable[[], AbstractContextManager[None]]]]:
    """Start a new server; yield its URL, a function that restarts it, and one that stops it within a context."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin")) if shutil.which("pg_ctl") is None else [Path()]
    if not programs:
        raise Missing("there is no pg_ctl: install PostgreSQL")
    # PostgreSQL refuses to run as root, and needs a folder that only its user can read.
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="lifecycle-faults-"))
    if user is not None:
        shutil.chown(folder, user)
    port = free_port()
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off -c shared_buffers=16MB"

    def call(program: str, *arguments: str) -> None:
        command = [programs[-1] / program, *arguments]
        done = subprocess.run(command, user=user, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Missing(f"{program} fails: {done.stderr.strip() or done.stdout.strip()}")

    def control(*what: str) -> None:
        call("pg_ctl", "-D", f"{folder}/data", "-w", "-s", "-l", f"{folder}/log", *what)

    @contextmanager
    def away() -> Iterator[None]:
        control("stop", "-m", "immediate")
        yield
        control("start", "-o", options)

    try:
        call("initdb", "-D", f"{folder}/data", "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync")
        control("start", "-o", options)
        try:
            yield (
                f"postgresql://postgres@127.0.0.1:{port}/postgres",
                lambda mode: control("restart", "-o", options, "-m", mode),
                away,
            )
        finally:
            control("stop", "-m", "immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# Redis ---------------------------------------------------------------------------------------------------------------


@contextmanager
def redis(folder: Path, *, private: bool) -> Iterator[Place]:
    """Start a new server. If `private`, it writes each change to its disk before it answers."""
    if shutil.which("redis-server") is None:
        raise Missing("there is no redis-server: install Redis")
    port, data = free_port(), folder / "redis"
    data.mkdir()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(data), "--save", ""]
    command += ["--appendonly", "yes", "--appendfsync", "always"] if private else []
    server: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        with (data / "log").open("ab") as log:
            server.append(subprocess.Popen(command, stdout=log, stderr=log))
        until(lambda: answers(port), "the Redis server")

    def stop(way: str) -> None:
        server[-1].send_signal(signal.SIGKILL if way == "kill" else signal.SIGTERM)
        server[-1].wait()

    def restart(way: str) -> None:
        stop(way)
        start()

    @contextmanager
    def away() -> Iterator[None]:
        stop("kill")
        yield
        start()

    def call(*commands: str) -> str:
        with socket.create_connection(("127.0.0.1", port)) as line:
            line.sendall("".join(f"{command}\r\n" for command in commands).encode())
            return line.recv(100).decode()

    def cut() -> int:
        answers = call("CLIENT KILL TYPE normal", "CLIENT KILL TYPE pubsub")
        return sum(int(number) for number in answers.replace(":", " ").split())

    def limit_memory(size: int) -> None:
        call("CONFIG SET maxmemory-policy noeviction")
        call(f"CONFIG SET maxmemory {size}")

    start()
    try:
        yield Place("redis", f"redis://127.0.0.1:{port}/0", cut, restart, ("term", "kill"), away, limit_memory)
    finally:
        server[-1].kill()
        server[-1].wait()


# A store of the user -------------------------------------------------------------------------------------------------


@contextmanager
def given(url: str) -> Iterator[Place]:
    """Open a store of the user; the trial uses a queue name of its own."""
    kind = {"postgresql": "postgres", "rediss": "redis"}.get(scheme := urlsplit(url).scheme, scheme)
    yield Place(kind, url)


STORES = {
    name: opened for name, opened in {"sqlite": sqlite, "postgres": postgres, "redis": redis}.items() if name in SCHEMES
}
"""Kinds of store of this release."""


@contextmanager
def place(store: str, folder: Path, *, private: bool = False) -> Iterator[Place]:
    """Open a store by its kind or its URL. Raises `Missing`."""
    if "://" in store:
        if private:
            raise Missing("this needs a server of its own, to restart it or to cut its connections")
        opened = given(store)
    else:
        opened = STORES[store](folder, private=private)
    with opened as one:
        yield one
