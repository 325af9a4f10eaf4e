"""A Redis server as a queue uses it: reached late, reached again when it is lost, safe to keep across a fork."""

import logging
import os
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from lifecycle.clock import monotonic, pause
from lifecycle.errors import StorageError, StorageFull, StorageUnavailable, StorageUnusable
from lifecycle.storage.base import Channel
from lifecycle.storage.notifications import Notifier
from lifecycle.storage.redis.connection import ConnectionLost, RedisConnection, Refused
from lifecycle.storage.redis.listener import RedisSubscription, Who
from lifecycle.storage.redis.scripts import Script, prefix, script, word
from lifecycle.storage.redis.url import ConnectionSettings

__all__ = ["OutcomeUnknown", "RedisServer"]

log = logging.getLogger("lifecycle")

OLDEST: Final = (6, 2)
"""The least version of Redis; Valkey says that it is a later one."""
EVICTING: Final = ("allkeys-lru", "allkeys-lfu", "allkeys-random", "allkeys-lrm")
"""What `maxmemory-policy` must not be. The volatile ones spare us: no key of ours has an end."""
FIRST: Final = 0.01
LONGEST: Final = 0.5
"""Seconds between two attempts to do what the server cannot do now; each is twice the one before."""
PASSING: Final = frozenset(
    {"LOADING", "BUSY", "TRYAGAIN", "MOVED", "ASK", "CLUSTERDOWN", "MASTERDOWN", "READONLY", "NOREPLICAS"}
)
"""What a server says that will be able to soon."""
_NEWS: Final = {1: Channel.WORK, 2: Channel.OUTCOME}
AGES: Final = 3600.0
"""Seconds after which a connection gets a new name for the answers that are remembered for it."""

_encode: Final = msgspec.msgpack.Encoder().encode
_live: "weakref.WeakSet[RedisServer]" = weakref.WeakSet()


class OutcomeUnknown(StorageUnavailable):
    """The connection was lost when the call was on its way: whether it happened is not known. `.line` was to do it."""

    def __init__(self, message: str, line: "NamedConnection") -> None:
        """`line`: it remembers which call that was."""
        super().__init__(message)
        self.line = line


class NamedConnection:
    """A connection, and the numbers of the calls that are made by it: they outlive it."""

    def __init__(self, wire: RedisConnection) -> None:
        self.wire = wire
        self.slot, self.number, self.since = "", 0, 0.0


class RedisServer:
    """One queue on a server; the server is looked at as it is reached."""

    def __init__(self, settings: ConnectionSettings, queue: str) -> None:
        """`settings`: what `lifecycle.storage.redis.url.parsed` made of a URL."""
        self._place = settings
        self.prefix = prefix(settings.prefix, queue)
        self._key = word(b"1") + word(self.prefix.encode())
        self._closed = self._told = self._reached = False
        self._home = self._address = settings.parameters["host"], settings.parameters["port"]
        """Where the URL says that the queue is, and where it is: in a cluster it may be on another node."""
        self._all: weakref.WeakSet[RedisConnection] = weakref.WeakSet()
        self.watch = Notifier(lambda: RedisSubscription(self._reach(self._wire()), self.prefix, self._who, _translated))
        self._begin_anew()
        _live.add(self)

    def _begin_anew(self) -> None:
        self._free: list[NamedConnection] = []
        self._who = Who(f"{os.getpid()}:{os.urandom(6).hex()}")

    def forget(self) -> None:
        """Start anew, as a child after a fork: connections and threads are the parent's."""
        for wire in self._all:
            wire.part()
        self._all = weakref.WeakSet()
        self.watch.reset_after_fork()
        self._begin_anew()

    # Connections ---------------------------------------------------------------------------------------------------

    def _wire(self) -> RedisConnection:
        wire = RedisConnection(self._place.parameters, tls=self._place.tls)
        self._all.add(wire)
        return wire

    def _reach(self, wire: RedisConnection) -> RedisConnection:
        """Open a connection, to a server that will do. Raises `StorageUnavailable`, `StorageUnusable`."""
        if self._closed:
            raise StorageError("the queue was closed")
        try:
            self._connect(wire)
        except (Refused, ConnectionLost) as error:
            raise _translated(error) from None
        return wire

    def _connect(self, wire: RedisConnection) -> None:
        try:
            wire.connect(*self._address)
        except ConnectionLost:
            self._address = self._home
            raise
        except UnicodeError:
            raise StorageUnusable("a host in the URL of the queue cannot be") from None
        try:
            self._look(wire)
        except BaseException:
            wire.close()
            raise
        self._reached = True

    def _look(self, wire: RedisConnection) -> None:
        """Is it a server that keeps what it is given?"""
        about = _words(wire, "INFO", "server")
        version = about.get("redis_version", "")
        numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
        if numbers and numbers < OLDEST:
            raise StorageUnusable(f"Redis {version} is too old: {'.'.join(map(str, OLDEST))} or newer is needed")
        if self._who.alone and about.get("redis_mode", "standalone") == "cluster":
            self._who.alone = False
            self._who.hears(())
        try:
            said = wire.say("CONFIG", "GET", "maxmemory-policy")
        except Refused as error:
            if error.code in PASSING:
                raise
            if not self._told:
                self._told = True
                log.warning(
                    "Redis does not say what it does when its memory is full (%s): see to it that its maxmemory-policy"
                    " is noeviction, or tasks will be lost",
                    error,
                )
            return
        policy = said[1].decode() if len(said) > 1 else ""
        if policy in EVICTING:
            raise StorageUnusable(
                f"the server's maxmemory-policy is {policy}: when its memory is full it throws tasks away; set it to"
                " noeviction, or use another server for the queue"
            )

    def _take(self) -> NamedConnection:
        if self._closed:
            raise StorageError("the queue was closed")
        try:
            line = self._free.pop()
        except IndexError:
            line = NamedConnection(self._wire())
        if line.slot and monotonic() - line.since > AGES:
            self._rename(line)
        return line

    def _rename(self, line: NamedConnection) -> None:
        line.slot, line.number = "", 0

    def give(self, line: NamedConnection) -> None:
        """Have others use it."""
        self._free.append(line)
        if self._closed:
            self._end()

    def _end(self) -> None:
        while self._free:
            self._free.pop().wire.close()

    # Calls -----------------------------------------------------------------------------------------------------------

    def write(self, name: str, *arguments: object) -> Any:
        """What a script answers that changes something; it does so once, whatever becomes of connections meanwhile.

        Raises `OutcomeUnknown` if the server cannot be reached any more; then `resolve` can say whether it did.
        """
        line = self._take()
        try:
            if not line.slot:
                line.slot = self._name_for(line)
            line.number += 1
            answer = self._run(line, script(name), (line.slot, line.number, self._who.told, *arguments), writes=True)
        except OutcomeUnknown:
            raise  # the line is the caller's now, to ask it
        except BaseException:
            self._rename(line)  # what may be on its way still has no part in what comes
            self.give(line)
            raise
        self.give(line)
        return self._heard(answer)

    def _heard(self, answer: Any) -> Any:
        """Have whoever waits in this process look, where a script has told those elsewhere."""
        news, told = answer
        if news:
            self.watch.notify(*(channel for bit, channel in _NEWS.items() if news & bit))
        return told

    def _name_for(self, line: NamedConnection) -> str:
        """A name for the answers that are remembered for a line: when it began, by the server's clock, and chance."""
        (seconds, _) = self._send(line, b"*1\r\n" + word(b"TIME"))
        line.since = monotonic()
        return f"{int(seconds)}-{os.urandom(8).hex()}"

    def resolve(self, line: NamedConnection) -> Any:
        """The answer to the call whose outcome was unknown; ``None`` if it did not happen, and then it never will."""
        answer = self._run(line, script("void"), (line.slot, line.number), writes=False)
        self.give(line)
        return None if answer is None else self._heard(answer)

    def read(self, name: str, *arguments: object) -> Any:
        """What a script answers that changes nothing."""
        line = self._take()
        try:
            return self._run(line, script(name), arguments, writes=False)
        finally:
            self.give(line)

    def fields(self, task_id: str, *names: bytes) -> list[bytes | None]:
        """Fields of a task's hash."""
        key = f"{self.prefix}:task:{task_id}".encode()
        return self.ask(b"HMGET", key, *names)  # type: ignore[no-any-return]

    def ask(self, *words: bytes) -> Any:
        """The answer to a command that changes nothing."""
        line = self._take()
        try:
            return self._send(line, b"*%d\r\n" % len(words) + b"".join(map(word, words)))
        finally:
            self.give(line)

    def _run(self, line: NamedConnection, what: Script, arguments: Sequence[object], *, writes: bool) -> Any:
        rest = self._key + word(_encode(arguments))
        return self._send(line, what.by_name + rest, what.by_text + rest, writes=writes)

    def _send(self, line: NamedConnection, command: bytes, by_text: bytes = b"", *, writes: bool = False) -> Any:
        """Send it until it is answered, or patience is over."""
        until, wait, unknown = monotonic() + self._place.patience, 0.0, False
        failure: Refused | ConnectionLost
        while True:
            try:
                return self._try(line.wire, command, by_text)
            except Refused as error:
                if error.code not in PASSING:
                    raise _translated(error) from None
                failure = error
            except ConnectionLost as error:
                unknown = unknown or (writes and error.sent)
                failure = error
            if monotonic() >= until or not self._reached:
                raise self._given_up(failure, line, unknown=unknown)
            pause(wait)  # the first time not at all: most often only the connection was gone
            wait = min(max(wait * 2, FIRST), LONGEST)

    def _try(self, wire: RedisConnection, command: bytes, by_text: bytes) -> Any:
        if not wire.open:
            if self._closed:
                raise StorageError("the queue was closed")
            self._connect(wire)
        try:
            wire.send(command)
            return wire.answer()
        except Refused as error:
            if error.code == "NOSCRIPT" and by_text:  # it was restarted, or told to forget: it learns it anew
                return self._try(wire, by_text, b"")
            if error.code == "READONLY":  # behind the same name there may be another server by now
                wire.close()
            elif error.code == "MOVED":
                host, _, port = str(error).rpartition(" ")[2].rpartition(":")
                self._address = host or self._address[0], int(port)
                wire.close()
            raise

    def _given_up(self, error: Refused | ConnectionLost, line: NamedConnection, *, unknown: bool) -> StorageError:
        if unknown:
            return OutcomeUnknown(
                f"the connection to Redis was lost ({error}) as a write was on its way: look whether it was made before"
                " you repeat it",
                line,
            )
        return _translated(error)

    def now(self) -> float:
        """The server's clock (UTC seconds)."""
        seconds, micros = self.ask(b"TIME")
        return int(seconds) + int(micros) / 1e6

    def close(self) -> None:
        """End the connections, for good; those in use end when they are not any more."""
        self._closed = True
        self.watch.close()
        self._end()


def _words(wire: RedisConnection, *command: str) -> Mapping[str, str]:
    """What ``INFO`` says; nothing if it is forbidden."""
    try:
        lines = wire.say(*command).decode("utf-8", "replace").splitlines()
    except Refused as error:
        if error.code != "NOPERM":
            raise
        return {}
    return dict(line.split(":", 1) for line in lines if ":" in line)


# Errors ------------------------------------------------------------------------------------------------------------

_ADVICE: Final[Sequence[tuple[frozenset[str], type[StorageError], str]]] = (
    (frozenset({"OOM"}), StorageFull, "nothing was changed: give the server more memory and try again"),
    (frozenset({"MISCONF"}), StorageFull, "nothing was changed: it can write to its disk no more"),
    (PASSING, StorageUnavailable, "nothing was changed, it can be tried again"),
    (frozenset({"NOAUTH", "WRONGPASS"}), StorageUnusable, "look at user and password in the URL"),
    (
        frozenset({"NOPERM"}),
        StorageUnusable,
        "let its user run scripts, publish and subscribe, and use the queue's keys",
    ),
    (frozenset({"WRONGTYPE", "ILLEGAL"}), StorageError, "nothing was changed"),
    (frozenset({"LATE"}), StorageUnavailable, "the call was given up, and nothing was changed by it"),
)


def _translated(error: Refused | ConnectionLost) -> StorageError:
    """The same in our words, and what to do."""
    if isinstance(error, ConnectionLost):
        return StorageUnavailable(f"Redis cannot be reached, it can be tried again: {error}")
    for codes, kind, advice in _ADVICE:
        if error.code in codes:
            return kind(f"Redis: {error.code} {error}; {advice}")
    return StorageError(f"Redis: {error.code} {error}")


# Forks -------------------------------------------------------------------------------------------------------------


def _in_child() -> None:
    for server in list(_live):
        server.forget()


os.register_at_fork(after_in_child=_in_child)
