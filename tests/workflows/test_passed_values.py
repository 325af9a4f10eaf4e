"""How the value of a step becomes arguments of the next one."""

import pytest
from conftest import drain

from lifecycle import PickleSerializer


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ((1, 2), {"named": 3})),
        ((), ((1, 2), {"named": 3})),
        ((8, 9), ((1, 2, 8, 9), {"named": 3})),
        ({}, ((1, 2), {"named": 3})),
        ({"named": 8, "other": 9}, ((1, 2), {"named": 3, "other": 9})),
        ([8, 9], ((1, 2, [8, 9]), {"named": 3})),
        (False, ((1, 2, False), {"named": 3})),
        ("", ((1, 2, ""), {"named": 3})),
        (((8,),), ((1, 2, (8,)), {"named": 3})),
    ],
)
@pytest.mark.parametrize("serializer", [None, PickleSerializer("a secret of the tests")], ids=["msgpack", "pickle"])
def test_a_value_is_added_to_the_arguments(make, value, expected, serializer):
    """Values come after the given arguments; given keywords stay; `None` and `()` add nothing; a list is one argument."""
    queue = make(serializer=serializer)
    before = queue.task(name="before")(lambda: value)
    got = []
    show = queue.task(name="show")(lambda *args, **kwargs: got.append((args, kwargs)))
    queue.enqueue(before.s() | show.s(1, 2, named=3))
    drain(queue)
    assert got == [expected]


def test_a_step_with_a_task_parameter_gets_values(queue):
    """A function that takes its task gets values as its other parameters do."""
    got = []

    @queue.task(name="show", context=True)
    def show(a, task, b):
        got.append((a, task.name, b))

    queue.enqueue(queue.task(name="before")(lambda: 2).s() | show.s(1))
    drain(queue)
    assert got == [(1, "show", 2)]


def test_stored_arguments_stay_as_they_were_given(queue):
    """The store keeps the arguments that were given: values are added when a worker runs the step."""
    last = queue.task(name="last")(lambda *args: args)
    results = queue.enqueue(last.s(1) | last.s(2))
    drain(queue)
    assert results.get() == [(1,), (2, 1)]
    assert queue.get(results[1].id).args == (2,)
