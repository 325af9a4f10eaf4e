"""Recorded runs: scenarios played on a clock that stands still, the same every time, and true to the table."""

import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lifecycle import LIFECYCLE, LifecycleError
from lifecycle.consumer.demo.demo import SCENARIOS, Scenario
from lifecycle.consumer.demo.gallery import draw
from lifecycle.consumer.demo.replay import PROTOCOL, rehearse
from lifecycle.diagrams import Sequence, sequence_mermaid
from lifecycle.diagrams.sequence import Arrow, Message, Note, Participant
from lifecycle.storage import SQLiteStorage, Storage

by_scenario = pytest.mark.parametrize("scenario", [*SCENARIOS, PROTOCOL], ids=lambda scenario: scenario.title)


@by_scenario
def test_scenarios_are_recorded(scenario):
    """What a picture says that handlers heard is what the scenario promises."""
    heard = [step for step in rehearse(scenario).steps if isinstance(step, Message) and step.target == "handlers"]
    told = [step.text for step in heard if step.source != "producer"]
    assert tuple(told) == scenario.promised
    assert all(step.arrow is Arrow.SEND and step.kind for step in heard)


@by_scenario
def test_what_is_stored_keeps_to_the_table(scenario):
    """The states that a picture notes at the store are a way through the table, each before its signal is heard."""
    at, stored = None, []
    for step in rehearse(scenario).steps:
        if isinstance(step, Note) and step.kind is not None:
            for name in step.text.removesuffix(" (held)").split(" → "):
                assert name in LIFECYCLE.targets(at)
                at = name
                stored.append(LIFECYCLE.state(name).signal)
        elif isinstance(step, Message) and step.target == "handlers":
            assert step.text in stored
    assert at is not None
    assert tuple(stored) == (LIFECYCLE.initial.signal, *scenario.promised)


@by_scenario
def test_recordings_do_not_depend_on_the_store(scenario, tmp_path):
    """A scenario is recorded the same, byte for byte, in memory, on SQLite, and when it is played again."""
    stores = []

    def opened():
        stores.append(SQLiteStorage(str(tmp_path / "run.db"), "default"))
        return stores[-1]

    try:
        on_file = sequence_mermaid(rehearse(scenario, opened))
    finally:
        for store in stores:
            store.close()
    assert on_file == sequence_mermaid(rehearse(scenario)) == sequence_mermaid(rehearse(scenario))


def test_a_broken_promise_is_no_picture():
    """A scenario whose signals are not those that it promises is not drawn, but reported."""
    liar = Scenario("a lie", (*SCENARIOS[0].promised, "error"), SCENARIOS[0].act)
    with pytest.raises(LifecycleError, match="a lie: executing, complete"):
        rehearse(liar)


def test_the_protocol_is_all_there():
    """The picture of the storage protocol shows calls that are methods of it, those that move tasks among them."""
    calls = [s.text for s in rehearse(PROTOCOL, full=True).steps if isinstance(s, Message) and s.target == "store"]
    names = {re.match(r"\w+", call)[0] for call in calls}
    assert {name for name in names if not hasattr(Storage, name)} == set()
    assert {"enqueue", "exchange", "release", "extend", "recover", "status", "generation", "wait", "next_due"} <= names


@given(text=st.text(min_size=1, max_size=20))
def test_sequences_bear_any_text(text):
    """A message of any text is one line of a sequence, and its drawing is well-formed."""
    assume(text.split())
    picture = Sequence(
        "any", text, (Participant("a", text), Participant("b", "b")), (Message("a", "b", text), Note((), text))
    )
    lines = sequence_mermaid(picture).split("\n")
    assert len(lines) == 8
    assert not any(";" in re.sub(r"#\w+;", "", line) for line in lines)
    ET.fromstring(draw(picture, "svg").encode())  # noqa: S314 -- our own
