"""Values of users in the command line's output: whatever their classes do, there is a text."""

from lifecycle.consumer.cli.task_fields import plain, repr_of, result_field


class Odd:
    """A class that cannot even be shown."""

    def __repr__(self):
        raise RuntimeError("no")


def test_value_that_json_has_is_itself():
    """A value that JSON can have is shown as it is."""
    assert plain({"a": [1, None, "x"]}) == {"a": [1, None, "x"]}


def test_value_that_json_has_not_is_its_text():
    """Any other value is shown as Python writes it; a class whose repr raises is named."""
    assert plain(1j) == "1j"
    assert plain(Odd()) == repr_of(Odd()) == "<Odd, whose repr raises>"


def test_result_that_is_not_there_is_none(queue):
    """A task without a result, or with an error instead of one, has no value to show."""
    assert result_field(queue, queue.in_state["complete"].task) == 3
    assert result_field(queue, queue.in_state["error"].task) is None
    assert result_field(queue, queue.in_state["queued"].task) is None
