"""Wheels, the sdist and editable installs: each gives `lifecycle` with `lifecycle.consumer`, and no other package."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from configparser import ConfigParser
from fnmatch import fnmatch
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.untraced

TREE = Path(__file__).parents[2]
"""The source tree that this test stands in: a clone, or an sdist that was unpacked."""
SETTINGS = tomllib.loads((TREE / "pyproject.toml").read_text())
MODULES = sorted(
    Path(folder, name).relative_to(TREE).as_posix()
    for folder, _, names in os.walk(TREE / "lifecycle", followlinks=True)  # in a clone, `lifecycle/consumer` is a link
    for name in names
    if name.endswith(".py")
)
ENTRY_POINTS = {
    "console_scripts": {"lifecycle": "lifecycle.consumer.cli.main:main"},
    "pytest11": {"lifecycle": "lifecycle.testing.plugin"},
}
PROGRAM = """
from typing import assert_type
from lifecycle import Consumer, TaskQueue
queue = TaskQueue("memory://")
@queue.task()
def add(a: int, b: int) -> int:
    return a + b
consumer = Consumer(queue, workers=2, worker_type="thread", grace=1.0)
assert_type(consumer.run(), bool)
assert_type(consumer.state, str | None)
assert_type(add(1, 2).get(blocking=True), int | None)
Consumer(5)  # type: ignore[arg-type]
"""


def build(kind, tree, folder):
    """Build a distribution as pip does, with the backend's function for this kind; its path."""
    code = f"import hatchling.build; print(hatchling.build.build_{kind}({str(folder)!r}))"
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tree, capture_output=True, text=True, check=True)
    return folder / done.stdout.strip()


def unpack(sdist, folder):
    """Unpack an sdist; the tree in it."""
    with tarfile.open(sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # the first releases of Python 3.11 lack it
        archive.extractall(folder)  # noqa: S202 -- of our own making
    (tree,) = folder.iterdir()
    return tree


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Each kind of distribution, by name."""
    folder = tmp_path_factory.mktemp("built")
    sdist = build("sdist", TREE, folder)
    tree = unpack(sdist, folder / "unpacked")
    return {
        "sdist": sdist,
        "wheel": build("wheel", TREE, folder),
        "editable": build("editable", TREE, tmp_path_factory.mktemp("editable")),
        "sdist-of-sdist": build("sdist", tree, tmp_path_factory.mktemp("again")),
        "wheel-of-sdist": build("wheel", tree, tmp_path_factory.mktemp("of-sdist")),
        "editable-of-sdist": build("editable", tree, tmp_path_factory.mktemp("editable-of-sdist")),
    }


def contents(path):
    """The names of the files in a distribution; without the folder in which all those of an sdist are."""
    if path.suffix == ".whl":
        return zipfile.ZipFile(path).namelist()
    with tarfile.open(path) as archive:
        assert all(member.isfile() for member in archive), "links do not survive everywhere"
        return [name.partition("/")[2] for name in archive.getnames()]


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """Installs a kind of wheel into an environment of its own, whose dependencies are this one's: its interpreter."""
    pythons = {}

    def install(kind):
        if kind not in pythons:
            folder = tmp_path_factory.mktemp(kind)
            venv.create(folder, symlinks=True)
            paths = sysconfig.get_paths("venv", {"base": str(folder), "platbase": str(folder)})
            zipfile.ZipFile(built[kind]).extractall(paths["purelib"])  # noqa: S202 -- that is all that a wheel needs
            others = {
                str(Path(find_spec(name).origin).parents[1]) for name in ("attrs", "msgspec", "transitions", "click")
            }
            Path(paths["purelib"], "zz_dependencies.pth").write_text("\n".join(sorted(others)))
            pythons[kind] = Path(paths["scripts"], "python")
        return pythons[kind]

    return install


def run(python, *arguments, cwd):
    """What a program prints, that Python runs without the current folder and `PYTHONPATH`."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    done = subprocess.run([python, "-P", *arguments], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


WHEELS = pytest.mark.parametrize("kind", ["wheel", "wheel-of-sdist"])
INSTALLS = pytest.mark.parametrize("kind", ["wheel", "wheel-of-sdist", "editable", "editable-of-sdist"])

# What they contain ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["wheel", "wheel-of-sdist", "sdist", "sdist-of-sdist"])
def test_distribution_contains_each_module_once(built, kind):
    """Wheels and sdists hold each module of the tree, those of the folder `consumer` in `lifecycle.consumer`, and `py.typed`."""
    names = contents(built[kind])
    assert len(names) == len(set(names))
    assert sorted(name for name in names if name.startswith("lifecycle/") and name.endswith(".py")) == MODULES
    assert "lifecycle/py.typed" in names
    assert "lifecycle/storage/redis/lua/base.lua" in names
    assert {name.partition("/")[0] for name in names}.isdisjoint({"consumer"})


@WHEELS
def test_wheel_installs_only_lifecycle(built, kind):
    """A wheel owns one import name: `lifecycle`."""
    tops = {name.partition("/")[0] for name in contents(built[kind])}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"lifecycle"}


def test_sdist_of_an_sdist_is_the_same(built):
    """An sdist that is built from an unpacked sdist, as distributors do, has the same files."""
    assert sorted(contents(built["sdist"])) == sorted(contents(built["sdist-of-sdist"]))


@INSTALLS
def test_entry_points_are_declared(built, kind):
    """The console script and the pytest plugin are declared in every kind of wheel."""
    (name,) = [name for name in contents(built[kind]) if name.endswith(".dist-info/entry_points.txt")]
    parsed = ConfigParser()
    parsed.read_string(zipfile.ZipFile(built[kind]).read(name).decode())
    assert {group: dict(parsed[group]) for group in parsed.sections()} == ENTRY_POINTS


def test_entry_points_can_be_loaded():
    """What the entry points of the distribution that is installed name is there."""
    for entry in distribution("task-lifecycle").entry_points:
        assert ENTRY_POINTS[entry.group][entry.name] == entry.value
        assert entry.load() is not None


# What they give -------------------------------------------------------------------------------------------------------


@INSTALLS
def test_install_gives_lifecycle_consumer(installed, kind, tmp_path):
    """Every module of the package can be imported from it, `lifecycle.consumer` among them; a wheel gives no `consumer`."""
    code = """if True:
        import sys, importlib.util, lifecycle
        from lifecycle import Consumer
        print(lifecycle.__file__, Consumer.__module__, importlib.util.find_spec("consumer") is not None)
        names = [name[:-3].replace("/", ".").removesuffix(".__init__") for name in sys.argv[1:]]
        print(*[name for name in names if importlib.util.find_spec(name) is None])
    """
    first, missing = run(installed(kind), "-c", code, *MODULES, cwd=tmp_path).splitlines()
    file, module, bare = first.split()
    assert Path(file).is_relative_to(installed(kind).parents[1]) == (kind in ("wheel", "wheel-of-sdist"))
    assert (module, missing) == ("lifecycle.consumer.consumer", "")
    assert bare == "False" or kind == "editable", "only a clone on the path has the folder"


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_strict_mypy_accepts_a_program(installed, kind, tmp_path):
    """A typed program with `from lifecycle import Consumer` passes mypy in strict mode against each kind of install."""
    (tmp_path / "program.py").write_text(PROGRAM)
    options = ["--strict", "--config-file=", f"--cache-dir={tmp_path}", f"--python-executable={installed(kind)}"]
    said = run(sys.executable, "-m", "mypy", *options, "program.py", cwd=tmp_path)
    assert said == "Success: no issues found in 1 source file\n"


# Coverage -------------------------------------------------------------------------------------------------------------


def test_coverage_measures_the_consumer_by_its_installed_name(tmp_path):
    """Coverage, with the settings of this tree, measures modules of `lifecycle.consumer`."""
    code = """if True:
        import coverage, sys
        measured = coverage.Coverage(config_file=sys.argv[1], data_file=None)
        measured.start()
        import lifecycle.consumer.health, lifecycle.consumer.workers.gevent_
        measured.stop()
        print(*measured.get_data().measured_files(), sep="\\n")
    """
    said = run(sys.executable, "-c", code, TREE / "pyproject.toml", cwd=tmp_path)
    names = {Path(line).relative_to(Path(line).parents[1]).as_posix() for line in said.splitlines()}
    assert {"consumer/health.py", "lifecycle/clock.py"} <= names
    assert "workers/gevent_.py" not in names


@pytest.mark.parametrize("pattern", SETTINGS["tool"]["coverage"]["run"]["omit"])
def test_coverage_omits_files_that_exist(pattern):
    """Each file that coverage leaves out is one of the package, as it is installed."""
    root = Path(find_spec("lifecycle").origin).parents[1]
    assert len([name for name in MODULES if fnmatch(f"{root}/{name}", pattern)]) == 1
