"""The specification can fail: what is broken on purpose is noticed. ``python tests/mutants`` tries all there is to break."""

from collections import Counter

import pytest
from mutants.catalog import EXPLAINED, ROOT, SOURCE, Mutant, mutants
from mutants.trials import Skipped, noticed_by
from support import postgres, redis_server

ALL = {mutant.name: mutant for mutant in mutants()}
SAMPLE = [
    "table: no revoke from scheduled",
    "table: retry from interrupted leads to queued",
    "table: start from revoked is legal",
    "admit: a revocation before the expiry",
    "settle: from anywhere",
    "fence: the version is not compared",
    "sqlite: versions stand still",
    "schema: the file refuses no move",
    "postgres: what another worker spends is not awaited",
    "redis: a function's revocation before the ETA",
    "engine: announced, then stored",
    "worker: announced though refused",
    "signals: one that raises silences the rest",
]


def test_each_has_its_place():
    """The source that a mutant changes is there, once, and no two mutants have one name."""
    sources = {mutant.file: (SOURCE / mutant.file).read_text() for mutant in ALL.values()}
    assert [mutant.name for mutant in ALL.values() if sources[mutant.file].count(mutant.old) != 1] == []
    assert [name for name, count in Counter(mutant.name for mutant in mutants()).items() if count > 1] == []
    assert set(EXPLAINED) <= set(ALL)
    suites = {suite.partition("::")[0] for mutant in ALL.values() for suite in mutant.suites}
    assert [suite for suite in suites if not (ROOT / "tests" / suite).exists()] == []


def test_each_mutant_is_python():
    """A mutant of a Python file can be compiled: a syntax error would be noticed by every test, and prove nothing."""
    for mutant in ALL.values():
        if mutant.file.endswith(".py"):
            compile((SOURCE / mutant.file).read_text().replace(mutant.old, mutant.new), mutant.name, "exec")


@pytest.mark.parametrize("name", SAMPLE)
def test_sample_of_mutants_is_noticed(name):
    """A test notices when the table, a guard or the order of two steps is changed."""
    if server := {"postgres": postgres, "redis": redis_server}.get(name.partition(":")[0]):
        server.require_server()
    assert noticed_by(ALL[name])


def test_skipped_suite_gives_no_verdict(tmp_path):
    """A suite that was skipped since its server is missing has noticed nothing: the mutant has a reason, and no verdict."""
    suite = tmp_path / "test_away.py"
    suite.write_text("import pytest\n\ndef test_it():\n    pytest.skip('no server')\n")
    with pytest.raises(Skipped, match=r"test_it is skipped: .*no server"):
        noticed_by(Mutant("nothing is broken", "table.py", "", "", (str(suite),)))
