"""`transitions.Machine` that replaces the library's path by a look-up where the path would only set the state.

This module knows no task queue, and no other module imports `transitions`. Its machines are built, extended, inspected
and pickled as the library documents (https://github.com/pytransitions/transitions, 0.9). Only two things differ: the
time of a trigger without callbacks, and the type of the error for an illegal trigger.

Each event has a look-up table from state to next state. The first trigger in a state adds the state's entry, unless a
callback is attached on the way or a method of the library on the way is overridden. All objects that were inspected for
an entry (machine, event, transition, states, their lists) know the table and drop it when they change.

Not promised for a look-up: log records; a second reading of `model.state` (the library reads the state again and raises
if it is unknown); a model that is a list or tuple (the library sets the state of the items). Not noticed: changes that
bypass the object (``vars(state)["on_enter"] = ...``, ``list.append(state.on_enter, f)``, ``machine._on_final = [f]``),
classes patched later, shallow copies of an event. Always on the library's path, plus 1 to 2 µs: machines with a queue,
another `model_attribute` or own methods; internal transitions; `State` and `Transition` objects of other classes than
the classes here; objects with a list that the caller made and may still change: ``clear`` the list, or set the
machine's attribute to `None`, not ``[]``. A dict assigned to `machine.states` or `event.transitions` is copied.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum
from functools import wraps
from typing import Any, ClassVar, Self

from transitions import Event, Machine, MachineError, State, Transition
from transitions.core import listify

from lifecycle.escaping import printable

__all__ = ["CompiledEvent", "CompiledMachine", "CompiledState", "CompiledTransition", "IllegalTransition"]


class IllegalTransition(MachineError):
    """Trigger that the state does not allow. Nothing was changed.

    `.state` (`None`: no state yet), `.trigger`, `.allowed` (the triggers that the state allows, in order of definition;
    empty if the state is final) and `.subject` (the object in that state, optional) are as given; `.value` is the
    message.
    """

    def __init__(self, state: str | None, trigger: str, allowed: tuple[str, ...], subject: str | None = None) -> None:
        where = f"{subject} {'is' if state else 'has'} " if subject else ""
        instead = f" (allowed: {', '.join(allowed)})" if allowed else " (final)" if state else ""
        super().__init__(f"{where}{state or 'no state'}: cannot {trigger}{instead}")
        self.state, self.trigger, self.allowed, self.subject = state, trigger, allowed, subject

    def __str__(self) -> str:  # that of the library is a repr
        return printable(Exception.__str__(self))

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...], dict[str, object]]:
        return type(self), (self.state, self.trigger, self.allowed, self.subject), vars(self)


# List of one item, the look-up table of an event; all objects that the table was compiled from share the list. A change
# replaces the table by an empty one, so that a thread that is still compiling writes into a table that is not read any
# more. Plain data, so that it can be copied and pickled. Keys: type of the state (for the library, a member of a
# StrEnum differs from the equal string), then the state; value: the next state, `None` for the library's path.
_Cell = list[dict[type, dict[object, object]]]
_CHANGING_METHODS = {
    "append", "extend", "insert", "__setitem__", "__delitem__", "__iadd__", "__imul__", "__ior__", "update", "pop",
    "popitem", "remove", "clear", "setdefault", "sort", "reverse",
}  # fmt: skip


def _drop_tables(cells: list[_Cell]) -> None:
    """Drop the tables in `cells`: an object that they were compiled from has changed."""
    with suppress(IndexError):  # another thread was faster
        while cells:
            cells.pop()[0] = {}


def _dropping_tables(change: Callable[..., object]) -> Callable[..., object]:
    """Wrap a method of a container so that a call drops the tables compiled from the container."""

    @wraps(change)
    def changed(self: "_ObservedContainer", *args: object, **kwargs: object) -> object:
        try:
            return change(self, *args, **kwargs)
        finally:
            _drop_tables(self.cells)

    return changed


class _ObservedContainer:
    """List or dict owned by an observed object: a change drops the tables compiled from that object."""

    cells: list[_Cell] = []  # noqa: RUF012 -- unpickling fills a container before it sets this

    def __init_subclass__(cls) -> None:
        for name in _CHANGING_METHODS.intersection(dir(cls)):
            setattr(cls, name, _dropping_tables(getattr(cls, name)))


class _ObservedList(_ObservedContainer, list[Any]): ...


class _ObservedStates(_ObservedContainer, OrderedDict[str, State]): ...


class _ObservedTransitions(_ObservedContainer, defaultdict[str, list[Transition]]):
    def __missing__(self, source: str) -> list[Transition]:
        made = self[source] = _ObservedList()
        made.cells = self.cells
        return made

    def __reduce__(self) -> tuple[object, ...]:  # that of defaultdict leaves the attributes out
        return type(self), (self.default_factory,), vars(self), None, iter(self.items())


class _Observed:
    """Object that tables are compiled from: drops them when a relevant attribute is set or a callback list changes."""

    _callback_lists: ClassVar[tuple[str, ...]] = ()  # attributes with the callbacks on the library's path
    _relevant_attributes: ClassVar[frozenset[str]] = frozenset()  # attributes that the library's path reads or calls
    _cells: list[_Cell] = []  # noqa: RUF012 -- replaced in __init__; nothing is compiled before

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._cells = []
        super().__init__(*args, **kwargs)
        for name in self._callback_lists:
            made = getattr(self, name)
            # A list of the caller stays as it is: the library allows the caller to change it later.
            if type(made) is list and all(made is not given for given in (*args, *kwargs.values())):
                setattr(self, name, self._adopt(_ObservedList(made)))

    def __setattr__(self, name: str, value: object) -> None:
        decides = name in self._relevant_attributes
        super().__setattr__(name, self._wrapped(name, value) if decides else value)
        if decides:
            _drop_tables(self._cells)

    def _wrapped(self, name: str, value: Any) -> object:  # noqa: ARG002
        """Return the value to store in this attribute: containers are replaced by observed ones."""
        return value

    def _adopt(self, container: _ObservedContainer) -> _ObservedContainer:
        container.cells = self._cells
        return container

    def _owns(self, container: object) -> bool:  # False for a list of another object that was assigned here as well
        return isinstance(container, _ObservedContainer) and container.cells is self._cells

    def _are_empty(self, *names: str) -> bool:
        """Return whether these lists are empty and cannot be filled unnoticed."""
        lists = [getattr(self, name, None) for name in names]
        return not any(lists) and all(self._owns(one) or type(one) is tuple for one in lists)

    def _is_plain(self, cell: _Cell) -> bool:
        """Return whether the object has no callback and overrides nothing; a later change drops the cell's table."""
        if all(known is not cell for known in self._cells):
            self._cells.append(cell)  # before the inspection, so that no change is missed
        ours = next(cls for cls in type(self).__mro__ if cls.__module__ == __name__)
        for name in self._relevant_attributes:
            stock = getattr(ours, name, None)
            if getattr(type(self), name, None) is not stock or (stock and name in vars(self)):
                return False
        return self._are_empty(*self._callback_lists)


class CompiledState(_Observed, State):
    """`transitions.State` that drops compiled tables when a callback is attached to it."""

    _callback_lists = ("on_enter", "on_exit")
    _relevant_attributes = frozenset({*_callback_lists, "_name", "name", "value", "final", "enter", "exit"})


class CompiledTransition(_Observed, Transition):
    """`transitions.Transition` that drops compiled tables when it changes or a callback is attached to it."""

    _callback_lists = ("prepare", "conditions", "before", "after")
    _relevant_attributes = frozenset(
        {*_callback_lists, "source", "dest", "execute", "_eval_conditions", "_change_state"}
    )


class CompiledEvent(_Observed, Event):
    """`transitions.Event` that looks up the next state where the library's path would only set it."""

    _relevant_attributes = frozenset({"transitions", "machine", "_trigger", "_process", "_is_valid_source"})

    def __init__(self, name: str, machine: Machine) -> None:
        self._cell: _Cell = [{}]
        super().__init__(name, machine)

    def _wrapped(self, name: str, value: Any) -> object:
        if name != "transitions":
            return value
        return self._adopt(
            _ObservedTransitions(list, {source: self._adopt(_ObservedList(found)) for source, found in value.items()})
        )

    def trigger(self, model: object, *args: object, **kwargs: object) -> bool:
        """Act as `transitions.Event.trigger` does; raises `IllegalTransition` if the trigger is not allowed."""
        try:  # no cost unless it raises; a check would cost each time
            state = model.state  # type: ignore[attr-defined]  # not getattr(), which is a call
            value = self._cell[0][type(state)][state]  # not .get(), which is a call
        except (AttributeError, KeyError, TypeError):  # not compiled yet, no state, or an unhashable state
            value = self._compile(model)
        if value is None:
            return super().trigger(model, *args, **kwargs)
        model.state = value  # type: ignore[attr-defined]
        return True  # without EventData, partial and loops over empty lists

    def _compile(self, model: Any) -> object:
        """Add the entry for the model's state to the table, and return the entry's value."""
        table, machine = self._cell[0], self.machine  # read first: a later change replaces the table, see _Cell
        try:
            state: Any = model.state if machine.model_attribute == "state" else None
            source = machine.states[state.name if isinstance(state, Enum) else state]
        except (AttributeError, KeyError, TypeError):
            return None  # the library's path raises the fitting error
        # A state with an equality of its own could find the entry of another state.
        value = self._next(source) if type(state).__eq__ in (str.__eq__, object.__eq__) else None  # type: ignore[comparison-overlap]
        table.setdefault(type(state), {})[state] = value
        return value

    def _next(self, source: State) -> object:
        """Return the value of the next state if the library's path would only set it, else `None`."""

        def plain(part: Any) -> bool:
            return isinstance(part, _Observed) and part._is_plain(self._cell)

        machine: Any = self.machine
        if not (plain(machine) and plain(self) and plain(source)) or machine.has_queue or machine._transition_queue:
            return None
        found = self.transitions.get(source.name)
        if not (found and self._owns(found) and plain(found[0])):  # without conditions, only the first is tried
            return None
        start, end, states = found[0].source, found[0].dest, machine.states
        dest: Any = states.get(end) if type(start) is type(end) is str and states.get(start) is source else None
        only_set = end and plain(dest) and dest.name == end and (not dest.final or machine._are_empty("on_final"))
        return dest.value if only_set else None

    def _is_valid_source(self, state: State) -> bool:
        try:
            return super()._is_valid_source(state)
        except MachineError:  # neither the state nor the machine ignores invalid triggers
            raise IllegalTransition(state.name, self.name, tuple(self.machine.get_triggers(state))) from None


class CompiledMachine(_Observed, Machine):
    """`transitions.Machine`, with all its arguments; a trigger without callbacks costs 0.1 µs."""

    state_cls, transition_cls, event_cls = CompiledState, CompiledTransition, CompiledEvent
    _callback_lists = ("prepare_event", "before_state_change", "after_state_change", "finalize_event", "on_exception")
    _properties = (*_callback_lists, "on_final")  # called if the next state is final
    _calls = ("_process", "callbacks", "get_state", "get_model_state", "set_state", "has_queue", "_queued")
    _relevant_attributes = frozenset({*_calls, "model_attribute", "states", *_properties})

    def _wrapped(self, name: str, value: Any) -> object:
        if name == "states":
            return self._adopt(_ObservedStates(value))
        made = listify(value) if name in self._properties else value
        return value if made is value else self._adopt(_ObservedList(made))

    @property
    def triggers(self) -> Mapping[str, Callable[[object], bool]]:
        """Map of trigger names to functions of a model, for loops: ``model.NAME()`` is one call more."""
        return {name: event.trigger for name, event in self.events.items()}
