"""A `transitions.Machine` that looks a trigger up where the library's own path would do nothing but change the state.

This module knows no task queues; no other one imports `transitions`. Its machines are built, extended, inspected
and pickled as that library documents (https://github.com/pytransitions/transitions, 0.9). What differs is how long a
trigger takes that nothing is attached to, and the type of the error if it is illegal.

Each event has a table from state to next state. A pair is entered when it is first triggered, if nothing is attached to
it, and nothing overridden that the library calls on the way. All that was looked at for this (machine, event,
transition, states, their lists) knows the table, and drops it when it changes.

Not promised on the looked-up path: log records; a second reading of `model.state` (the library reads what it set, and
objects if that is no state); a model that is a list or tuple (the library sets the state of its items). Not noticed:
what goes around the object (``vars(state)["on_enter"] = ...``, ``list.append(state.on_enter, f)``, ``machine._on_final
= [f]``), a class patched later, a shallow copy of an event. Never looked up, which takes the library's time and 1 or
2 µs: machines with a queue, another `model_attribute` or methods of their own; internal transitions; `State` and
`Transition` objects of other classes than these; what holds a list that the caller made and may still change: ``clear``
it, or set the machine's to `None`, not ``[]``. A dict assigned to `machine.states` or `event.transitions` is copied.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum
from functools import wraps
from typing import Any, ClassVar, Self

from transitions import Event, Machine, MachineError, State, Transition
from transitions.core import listify

__all__ = ["CompiledEvent", "CompiledMachine", "CompiledState", "CompiledTransition", "IllegalTransition"]


class IllegalTransition(MachineError):
    """A trigger that the state does not allow. Nothing was changed.

    `.state` (`None` if there is none), `.trigger`, `.allowed` (what this state does allow, in order of definition;
    empty if it is final) and `.subject` (what is in that state; may be left out) are as given; `.value` is the message.
    """

    def __init__(self, state: str | None, trigger: str, allowed: tuple[str, ...], subject: str | None = None) -> None:
        where = f"{subject} {'is' if state else 'has'} " if subject else ""
        instead = f" (allowed: {', '.join(allowed)})" if allowed else " (final)" if state else ""
        super().__init__(f"{where}{state or 'no state'}: cannot {trigger}{instead}")
        self.state, self.trigger, self.allowed, self.subject = state, trigger, allowed, subject

    __str__ = Exception.__str__  # the library's is a repr

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...], dict[str, object]]:
        return type(self), (self.state, self.trigger, self.allowed, self.subject), vars(self)


# An event's table, in a list that all it was compiled from share. A change does not empty the table but puts a new one
# there, so that a thread that is still compiling writes into one that nobody reads. Plain data: it copies and pickles.
# State's type (to the library a member of a StrEnum is not the string it equals), state: next one, `None` for its path.
_Cell = list[dict[type, dict[object, object]]]
_CHANGES = {"append", "extend", "insert", "__setitem__", "__delitem__", "__iadd__", "__imul__", "__ior__", "update"}
_CHANGES |= {"pop", "popitem", "remove", "clear", "setdefault", "sort", "reverse"}


def _forget(readers: list[_Cell]) -> None:
    """Drop every table that was compiled from what has just changed."""
    with suppress(IndexError):  # another thread was quicker
        while readers:
            readers.pop()[0] = {}


def _telling(change: Callable[..., object]) -> Callable[..., object]:
    @wraps(change)
    def told(self: "_Telling", *args: object, **kwargs: object) -> object:
        try:
            return change(self, *args, **kwargs)
        finally:
            _forget(self.readers)

    return told


class _Telling:
    """A list or dict that a watched object owns: a change drops what was compiled from that object."""

    readers: list[_Cell] = []  # noqa: RUF012 -- an unpickled one is filled before it gets its own

    def __init_subclass__(cls) -> None:
        for name in _CHANGES.intersection(dir(cls)):
            setattr(cls, name, _telling(getattr(cls, name)))


class _List(_Telling, list[Any]): ...


class _States(_Telling, OrderedDict[str, State]): ...


class _Transitions(_Telling, defaultdict[str, list[Transition]]):
    def __missing__(self, source: str) -> list[Transition]:
        made = self[source] = _List()
        made.readers = self.readers
        return made

    def __reduce__(self) -> tuple[object, ...]:  # a defaultdict's own leaves the attributes out
        return type(self), (self.default_factory,), vars(self), None, iter(self.items())


class _Watched:
    """What a table is compiled from: drops it when an attribute that decides is set, or one of its lists changes."""

    _lists: ClassVar[tuple[str, ...]] = ()  # the attributes that hold what is called on the way
    _decides: ClassVar[frozenset[str]] = frozenset()  # all that the library's path reads or calls on the way
    _readers: list[_Cell] = []  # noqa: RUF012 -- until __init__, before which nothing is compiled

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._readers = []
        super().__init__(*args, **kwargs)
        for name in self._lists:
            made = getattr(self, name)
            # The caller's own list stays what it is: it may be changed where it came from, and the library allows that.
            if type(made) is list and all(made is not given for given in (*args, *kwargs.values())):
                setattr(self, name, self._own(_List(made)))

    def __setattr__(self, name: str, value: object) -> None:
        decides = name in self._decides
        super().__setattr__(name, self._kept(name, value) if decides else value)
        if decides:
            _forget(self._readers)

    def _kept(self, name: str, value: Any) -> object:  # noqa: ARG002
        """What to keep as this attribute: the value, or a container of ours where the library would make one."""
        return value

    def _own(self, container: _Telling) -> _Telling:
        container.readers = self._readers
        return container

    def _owns(self, container: object) -> bool:  # and not another object, whose list was assigned here as well
        return isinstance(container, _Telling) and container.readers is self._readers

    def _is_idle(self, *names: str) -> bool:
        """Whether these lists are empty, and cannot be filled unnoticed."""
        lists = [getattr(self, name, None) for name in names]
        return not any(lists) and all(self._owns(one) or type(one) is tuple for one in lists)

    def _is_plain(self, cell: _Cell) -> bool:
        """Whether nothing is attached to it or overridden in it; the cell is told when this may have changed."""
        if all(reader is not cell for reader in self._readers):
            self._readers.append(cell)  # first, so that no change is missed
        ours = next(cls for cls in type(self).__mro__ if cls.__module__ == __name__)
        for name in self._decides:
            stock = getattr(ours, name, None)
            if getattr(type(self), name, None) is not stock or (stock and name in vars(self)):
                return False
        return self._is_idle(*self._lists)


class CompiledState(_Watched, State):
    """A `transitions.State` that tells when something is attached to it."""

    _lists = ("on_enter", "on_exit")
    _decides = frozenset({*_lists, "_name", "name", "value", "final", "enter", "exit"})


class CompiledTransition(_Watched, Transition):
    """A `transitions.Transition` that tells when it changes, or something is attached to it."""

    _lists = ("prepare", "conditions", "before", "after")
    _decides = frozenset({*_lists, "source", "dest", "execute", "_eval_conditions", "_change_state"})


class CompiledEvent(_Watched, Event):
    """A `transitions.Event` that looks the next state up where that is all there is to do."""

    _decides = frozenset({"transitions", "machine", "_trigger", "_process", "_is_valid_source"})

    def __init__(self, name: str, machine: Machine) -> None:
        self._cell: _Cell = [{}]
        super().__init__(name, machine)

    def _kept(self, name: str, value: Any) -> object:
        if name != "transitions":
            return value
        return self._own(_Transitions(list, {source: self._own(_List(found)) for source, found in value.items()}))

    def trigger(self, model: object, *args: object, **kwargs: object) -> bool:
        """Do, return and raise what `transitions.Event.trigger` does; `IllegalTransition` if it is not allowed here."""
        try:  # free of charge unless it fails, where a check is paid for every time
            state = model.state  # type: ignore[attr-defined]  # not getattr(): a call
            value = self._cell[0][type(state)][state]  # not .get(): calls; for these there are bytecodes
        except (AttributeError, KeyError, TypeError):  # not compiled yet; or no state, or an unhashable one
            value = self._compile(model)
        if value is None:
            return super().trigger(model, *args, **kwargs)
        model.state = value  # type: ignore[attr-defined]
        return True  # no EventData, no partial, no walk through empty lists

    def _compile(self, model: Any) -> object:
        """Enter in the table what the trigger does in the model's state, and return it."""
        table, machine = self._cell[0], self.machine  # from here on a change replaces the table: see _Cell
        try:
            state: Any = model.state if machine.model_attribute == "state" else None
            source = machine.states[state.name if isinstance(state, Enum) else state]
        except (AttributeError, KeyError, TypeError):
            return None  # the library's path says what is wrong with it
        # An equality of another making might find another state's entry.
        value = self._next(source) if type(state).__eq__ in (str.__eq__, object.__eq__) else None  # type: ignore[comparison-overlap]
        table.setdefault(type(state), {})[state] = value
        return value

    def _next(self, source: State) -> object:
        """The next state's value if the library's path would only set it, or `None`. The first obstacle is enough."""

        def plain(part: Any) -> bool:
            return isinstance(part, _Watched) and part._is_plain(self._cell)

        machine: Any = self.machine
        if not (plain(machine) and plain(self) and plain(source)) or machine.has_queue or machine._transition_queue:
            return None
        found = self.transitions.get(source.name)
        if not (found and self._owns(found) and plain(found[0])):  # without conditions the first is the only one tried
            return None
        start, end, states = found[0].source, found[0].dest, machine.states
        dest: Any = states.get(end) if type(start) is type(end) is str and states.get(start) is source else None
        only_set = end and plain(dest) and dest.name == end and (not dest.final or machine._is_idle("on_final"))
        return dest.value if only_set else None

    def _is_valid_source(self, state: State) -> bool:
        try:
            return super()._is_valid_source(state)
        except MachineError:  # neither the state nor the machine ignores it
            raise IllegalTransition(state.name, self.name, tuple(self.machine.get_triggers(state))) from None


class CompiledMachine(_Watched, Machine):
    """A `transitions.Machine`, with all its arguments, whose triggers cost 0.1 µs where nothing is attached to them."""

    state_cls, transition_cls, event_cls = CompiledState, CompiledTransition, CompiledEvent
    _lists = ("prepare_event", "before_state_change", "after_state_change", "finalize_event", "on_exception")
    _properties = (*_lists, "on_final")  # which matters where the next state is final
    _calls = ("_process", "callbacks", "get_state", "get_model_state", "set_state", "has_queue", "_queued")
    _decides = frozenset({*_calls, "model_attribute", "states", *_properties})

    def _kept(self, name: str, value: Any) -> object:
        if name == "states":
            return self._own(_States(value))
        made = listify(value) if name in self._properties else value
        return value if made is value else self._own(_List(made))

    @property
    def triggers(self) -> Mapping[str, Callable[[object], bool]]:
        """What to call with a model, by the trigger's name: for loops, where ``model.NAME()`` is one call more."""
        return {name: event.trigger for name, event in self.events.items()}
