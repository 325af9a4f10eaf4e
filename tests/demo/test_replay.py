"""The replay of the demo's scenarios on a virtual clock: the same every time, and legal by the table."""

import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lifecycle import LIFECYCLE, LifecycleError
from lifecycle.consumer.demo.gallery import draw
from lifecycle.consumer.demo.replay import STORAGE_PROTOCOL, record_scenario
from lifecycle.consumer.demo.scenarios import SCENARIOS, Scenario
from lifecycle.consumer.demo.storage_tracer import REFUSED
from lifecycle.diagrams import Sequence, sequence_mermaid
from lifecycle.diagrams.sequence import Arrow, Message, Note, Participant
from lifecycle.storage import SQLiteStorage, Storage

by_scenario = pytest.mark.parametrize("scenario", [*SCENARIOS, STORAGE_PROTOCOL], ids=lambda scenario: scenario.title)


@by_scenario
def test_signals_of_a_picture_are_the_promised_ones(scenario):
    """The consumers' signals in a picture are the signals that the scenario promises."""
    received = [
        step for step in record_scenario(scenario).steps if isinstance(step, Message) and step.target == "handlers"
    ]
    from_consumers = [step.text for step in received if step.source != "producer"]
    assert tuple(from_consumers) == scenario.promised
    assert all(step.arrow is Arrow.SEND and step.shade for step in received)


@by_scenario
def test_stored_states_of_a_picture_follow_the_table(scenario):
    """The states at the store are a path through the table, each before its signal."""
    at, stored = None, []
    for step in record_scenario(scenario).steps:
        if isinstance(step, Note) and step.shade is not None and not step.text.startswith(REFUSED):
            for name in step.text.removesuffix(" (held)").split(" → "):
                assert name in LIFECYCLE.targets(at)
                at = name
                stored.append(LIFECYCLE.state(name).signal)
        elif isinstance(step, Message) and step.target == "handlers":
            assert step.text in stored
    assert at is not None
    assert tuple(stored) == (LIFECYCLE.initial.signal, *scenario.promised)


@by_scenario
def test_picture_does_not_depend_on_the_store(scenario, tmp_path):
    """A scenario is recorded the same, byte for byte, in memory, on SQLite, and when it is replayed."""
    stores = []

    def opened():
        stores.append(SQLiteStorage(str(tmp_path / "run.db"), "default"))
        return stores[-1]

    try:
        on_file = sequence_mermaid(record_scenario(scenario, opened))
    finally:
        for store in stores:
            store.close()
    assert on_file == sequence_mermaid(record_scenario(scenario)) == sequence_mermaid(record_scenario(scenario))


def test_scenario_with_wrong_signals_is_not_drawn():
    """A scenario whose signals are not the promised ones is not drawn: `LifecycleError`."""
    wrong = Scenario("wrong", (*SCENARIOS[0].promised, "error"), SCENARIOS[0].run)
    with pytest.raises(LifecycleError, match="wrong: executing, complete"):
        record_scenario(wrong)


def test_storage_picture_shows_methods_of_the_storage_protocol():
    """The picture of the storage protocol shows only methods of `Storage`, and all that move tasks."""
    calls = [
        s.text
        for s in record_scenario(STORAGE_PROTOCOL, full=True).steps
        if isinstance(s, Message) and s.target == "store"
    ]
    names = {re.match(r"\w+", call)[0] for call in calls}
    assert {name for name in names if not hasattr(Storage, name)} == set()
    assert {"enqueue", "exchange", "release", "extend", "recover", "status", "generation", "wait", "next_due"} <= names


@given(text=st.text(min_size=1, max_size=20))
def test_sequence_with_any_text_is_well_formed(text):
    """A message of any text is one line of a sequence, and its SVG is well-formed."""
    assume(text.split())
    picture = Sequence(
        "any", text, (Participant("a", text), Participant("b", "b")), (Message("a", "b", text), Note((), text))
    )
    lines = sequence_mermaid(picture).split("\n")
    assert len(lines) == 8
    assert not any(";" in re.sub(r"#\w+;", "", line) for line in lines)
    ET.fromstring(draw(picture, "svg").encode())  # noqa: S314 -- our own
