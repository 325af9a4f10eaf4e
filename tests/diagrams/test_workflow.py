"""Diagrams of workflows: every task is there, every link, in every format; tasks that are alike are one node."""

import re
import xml.etree.ElementTree as ET

from hypothesis import given, settings
from hypothesis import strategies as st
from support.profiles import examples

from lifecycle.core.step import Step
from lifecycle.core.table import LIFECYCLE, Kind
from lifecycle.core.task import Task
from lifecycle.diagrams.drawing.workflow import workflow_svg
from lifecycle.diagrams.workflow import TASK_LIMIT, collect, workflow
from lifecycle.diagrams.workflow_text import workflow_dot, workflow_mermaid

NAMES = st.sampled_from(["add", "mul"])
STORED = [state.name for state in LIFECYCLE.states if state.kind is not Kind.PASSING]
SVG = "{http://www.w3.org/2000/svg}"
BOX = re.compile(r'<g class="node .*?<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"')


def chain(ids, **fields):
    """Return tasks of which each waits for the one before."""
    tasks = [Task(one, "add", state=LIFECYCLE.initial.name, seq=number, **fields) for number, one in enumerate(ids)]
    for number, task in enumerate(tasks):
        before, after = ids[number - 1] if number else None, tuple(ids[number + 1 : number + 2])
        task.step = Step(before, int(number > 0), after)
    return tasks


@st.composite
def workflows(draw, names=NAMES):
    """Tasks in which each may wait for any of the earlier ones."""
    count = draw(st.integers(1, 14))
    before = [draw(st.sets(st.integers(0, number - 1), max_size=4)) if number else set() for number in range(count)]
    tasks = []
    for number in range(count):
        dependents = tuple(f"t{other}" for other in range(count) if number in before[other])
        inputs, on_failure = [f"t{one}" for one in sorted(before[number])], draw(st.booleans())
        step = Step(inputs, len(inputs), dependents, on_failure)
        tasks.append(Task(f"t{number}", draw(names), state=draw(st.sampled_from(STORED)), seq=number, step=step))
    return tasks


@given(workflows())
@settings(max_examples=examples(300))
def test_every_task_and_every_link_is_in_the_picture(tasks):
    """Each task is in one node, with its function and state; a link joins the nodes of two tasks if one waits for the other."""
    picture = workflow("title", tasks)
    node_of = {task_id: number for number, node in enumerate(picture.nodes) for task_id in node.ids}
    assert sorted(task_id for node in picture.nodes for task_id in node.ids) == sorted(task.id for task in tasks)
    for task in tasks:
        node = picture.nodes[node_of[task.id]]
        assert (node.name, node.state, node.on_failure) == (task.name, task.state, task.step.on_failure)
    expected = {(node_of[task.id], node_of[one]) for task in tasks for one in task.step.dependents}
    assert {(link.source, link.target) for link in picture.links} == expected
    assert len(picture.links) == len(expected)
    assert all(picture.ranks[source] < picture.ranks[target] for source, target in expected)


@given(workflows(st.text(max_size=8)))
@settings(max_examples=examples(150))
def test_pictures_are_well_formed_whatever_the_names_are(tasks):
    """Each format shows each node once; the drawing is XML, no two boxes overlap, and a second one has the same bytes."""
    picture = workflow("title", tasks)
    drawing = workflow_svg(picture)
    assert drawing == workflow_svg(workflow("title", tasks))
    ET.fromstring(drawing)  # noqa: S314 -- ours
    boxes = [tuple(map(float, found)) for found in BOX.findall(drawing)]
    assert len(boxes) == len(picture.nodes)
    for number, (x, y, width, height) in enumerate(boxes):
        for other_x, other_y, other_width, other_height in boxes[number + 1 :]:
            assert (
                x + width < other_x or other_x + other_width < x or y + height < other_y or other_y + other_height < y
            )
    assert len(re.findall(r"^    t\d+\(", workflow_mermaid(picture), re.MULTILINE)) == len(picture.nodes)
    assert len(re.findall(r"^    t\d+ \[", workflow_dot(picture), re.MULTILINE)) == len(picture.nodes)


def test_many_tasks_that_are_alike_are_one_node():
    """A thousand members of a chord are one node for each state, however many steps each member has."""
    members = [chain([f"a{number}", f"b{number}", "end"])[:2] for number in range(1000)]
    end = Task("end", "mul", state=STORED[2], seq=5000, step=Step([f"b{number}" for number in range(1000)], 1000))
    tasks = [*(task for member in members for task in member), end]
    for first, _ in members[:10]:
        first.state = STORED[-1]
    picture = workflow("title", tasks)
    assert sorted(len(node.ids) for node in picture.nodes) == [1, 10, 10, 990, 990]
    assert len(picture.links) == 4
    assert "add (990 tasks)" in workflow_svg(picture)


def test_a_few_tasks_that_are_alike_are_nodes_of_their_own():
    """Three members of a group are three nodes."""
    members = [
        Task(one, "add", state=STORED[0], seq=number, step=Step(None, 0, ("d",))) for number, one in enumerate("abc")
    ]
    picture = workflow("title", [*members, Task("d", "add", state=STORED[0], seq=3, step=Step(list("abc"), 3))])
    assert len(picture.nodes) == 4


def test_tasks_of_a_workflow_are_found_from_any_of_them():
    """The tasks before and after a task, and those of other branches, are found by their ids; deleted tasks are left out."""
    tasks = {task.id: task for task in chain(list("abcd"))}
    assert [task.id for task in collect(["c"], tasks.get)] == list("abcd")
    del tasks["b"]
    assert [task.id for task in collect(["d"], tasks.get)] == list("cd")
    alone = Task("x", "add", state=STORED[0])
    assert collect(["x"], {"x": alone}.get) == [alone]


def test_a_huge_workflow_is_looked_up_in_part():
    """No more than `TASK_LIMIT` tasks are looked up."""
    count = 0

    def get(task_id):
        nonlocal count
        count += 1
        return Task(task_id, "add", state=STORED[0], seq=count, step=Step(dependents=(f"{int(task_id) + 1}",)))

    assert len(collect(["0"], get)) == count == TASK_LIMIT


def test_links_to_error_callbacks_are_dashed_and_explained():
    """A link to an error callback is dashed, and its meaning is written in each format."""
    task, callback = chain(list("ab"))
    callback.step = Step(None, 1, (), on_failure=True, after=("a",))
    picture = workflow("title", [task, callback])
    for draw in workflow_svg, workflow_mermaid, workflow_dot:
        assert "on failure" in draw(picture)
        assert "on failure" not in draw(workflow("title", chain(list("ab"))))
    drawing = ET.fromstring(workflow_svg(picture))  # noqa: S314 -- ours
    assert next(path.get("class") for path in drawing.iter(f"{SVG}path")) == "line failure"
