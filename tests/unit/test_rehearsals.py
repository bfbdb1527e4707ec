"""What a rehearsal finds of a library's registries, and what it takes for harmless."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.errors import RehearsalError
from app.publishing.trials.rehearsal import Rehearsal
from app.publishing.trials.rehearser import Rehearser
from app.publishing.trials.trial import TrialRunner
from app.publishing.trials.trial_limits import NICE
from app.records import FRESH, HOT
from tests.support.plugins import artifact_of, plugin_text

LIBRARIES = Path(__file__).parent.parent / "support" / "libraries"


@pytest.fixture(scope="module")
def rehearser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearser]:
    root = tmp_path_factory.mktemp("rehearsals")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(LIBRARIES))
        patch.setattr(sys, "path", [str(LIBRARIES), *sys.path])
        runner = TrialRunner(None, plugins_dir=root / "plugins")
        runner.prepare()
    yield runner.rehearser(root / "plugins", root / "artifacts")
    runner.stop()


@pytest.fixture
def rehearse(rehearser: Rehearser):
    def rehearse(at_import: str, before: str | None = None, cleanup: str = "pass") -> Rehearsal:
        older = None if before is None else artifact_of({"main.py": plugin(before, cleanup)})
        return rehearser.rehearse(older, artifact_of({"main.py": plugin(at_import, cleanup)}), 4)

    return rehearse


def plugin(at_import: str, cleanup: str = "pass") -> str:
    return f"import fake_library\n{at_import}\n" + plugin_text(cleanup=cleanup)


@pytest.mark.parametrize(
    ("at_import", "why"),
    [
        (
            "fake_library.refuse_twice('clicks')",
            r"loaded beside its older version, import fails: ValueError: clicks is already "
            r"registered \(main\.py:2\)",
        ),
        (
            "@fake_library.keep_class\nclass Tag: pass\n@fake_library.keep_class\nclass Book: pass",
            r"fake_library\.classes keeps Tag and Book of the older version",
        ),
        (
            "@fake_library.keep_class\nclass Bare:\n    def f(self): pass",
            r"fake_library\.classes keeps Bare of the older version",
        ),
        (
            "def add(): pass\nadd = fake_library.keep_first('add', add)",
            r"fake_library\.names keeps add of the older version",
        ),
        (
            "class Task:\n    def run(self): pass\nfake_library.keep_first('task', Task())",
            r"fake_library\.names keeps an instance of Task of the older version",
        ),
        ("fake_library.add_job()", r"fake_library\.jobs grows by 1 with each load"),
        ("fake_library.handlers.add()", r"fake_library\.handlers grows by 1 with each load"),
        (
            "fake_library.set_provider(object())",
            r"at a second load it is said: fake_library: Overriding the provider is not allowed",
        ),
        (
            "fake_library.warn_twice('table')",
            r"at a second load it is said: UserWarning: table is defined again",
        ),
        (
            "import warnings\nclass Table: pass\nif fake_library.filled_twice():\n"
            "    warnings.warn(f'{Table} is not taken')",
            r"at a second load it is said: UserWarning: <class '.*Table'> is not taken",
        ),
        (
            "class Tag: pass\n"
            "known = fake_library.names.setdefault('tag', Tag)\n"
            "if known is not Tag: raise ValueError(f'{Tag} is {known}')",
            r"loaded beside its older version, import fails: ValueError: "
            r"<class 'main\.Tag'> is <class 'main\.Tag'> \(main\.py:4\)",
        ),
        (
            "import warnings\n"
            "if hasattr(fake_library, 'seen'):\n"
            "    warnings.warn(f'{__name__} comes again', UserWarning)\n"
            "fake_library.seen = 1",
            r"at a second load it is said: UserWarning: main comes again",
        ),
        (
            "fake_library.configure(__name__)",
            r"fake_library still names a module of the older version",
        ),
        (
            "import logging\nlogging.getLogger('shop').addHandler(logging.NullHandler())",
            r"the logger 'shop' grows by 1 with each load",
        ),
        (
            "import os, sys\nif hasattr(fake_library, 'x'): os.abort()\nfake_library.x = 1",
            r"loaded beside its older version, it ends its process with SIGABRT",
        ),
    ],
)
def test_what_a_library_keeps_is_found(rehearse, at_import: str, why: str) -> None:
    found = rehearse(at_import)
    assert found.reload.how == FRESH

    assert re.fullmatch(why, found.reload.why), found.reload.why
    assert found.reload.advice


@pytest.mark.parametrize(
    "at_import",
    [
        "",
        "import dataclasses\n@dataclasses.dataclass\nclass Item:\n    number: int = 0",
        "import typing\nclass Item: pass\nWanted = typing.Optional[Item]\nMany = list[Item]",
        "import enum\nclass Colour(enum.Enum):\n    RED = 1",
        "import abc\nclass Base(abc.ABC): pass\nclass Real(Base): pass\nisinstance(1, Base)",
        "import re\nre.compile('a+' + __name__)",
        "import logging\nlog = logging.getLogger(__name__)\nlog.warning('loading')",
        "@fake_library.convert\nclass Item: pass",
        "class Item: pass\nfake_library.describe(Item)",
        "@fake_library.keep_latest\nclass Item: pass",
        "@fake_library.replace\nclass Item: pass",
        "@fake_library.remember\nclass Item: pass",
        "fake_library.fill()",
        "from functools import singledispatch\n@singledispatch\ndef show(x): pass\n"
        "class Item: pass\n@show.register\ndef show_item(x: Item): pass",
        "class Lazy:\n    @property\n    def __class__(self): raise RuntimeError('not now')\n"
        "LAZY = Lazy()",
    ],
)
def test_what_harms_nobody_stays_hot(rehearse, at_import: str) -> None:
    found = rehearse(at_import)
    assert (found.reload.how, found.reload.why, found.left) == (HOT, "", ())


def test_what_cleanup_takes_back_is_not_found(rehearse) -> None:
    assert rehearse("fake_library.add_job()", cleanup="fake_library.jobs.pop(0)").reload.how == HOT


def test_what_each_load_leaves_behind_is_told_and_is_hot(rehearse) -> None:
    found = rehearse("fake_library.start_thread()")
    assert (found.reload.how, found.left) == (HOT, ("the thread 'exporter'",))


def test_what_is_told_has_no_numbers_of_the_rehearsals_generations(rehearse) -> None:
    """They are no row's: the second load of generation 4 was called generation 5."""
    found = rehearse("import textwrap\ndef fill(text): ...\ntextwrap.fill = fill")
    [text] = found.left
    assert re.fullmatch(r"textwrap\.fill is main\.fill, it was main\.fill", text), text


def test_what_each_load_changes_for_the_whole_process_is_told_and_is_hot(rehearse) -> None:
    found = rehearse(
        "import textwrap, types\n"
        "textwrap.dedent = types.FunctionType(textwrap.fill.__code__, textwrap.__dict__)"
    )
    assert found.reload.how == HOT, found
    assert [text.partition(" is ")[0] for text in found.left] == ["textwrap.dedent"]
    once = "import textwrap\nif not hasattr(textwrap, 'own'):\n    textwrap.own = textwrap.fill = 1"
    assert rehearse(once).left == (), "what only the first load does is nobody's fault"


def test_it_leaves_the_processor_to_others(rehearse, tmp_path: Path) -> None:
    """Niceness alone counts within a session, and each rehearsal has one of its own."""
    seen = tmp_path / "seen"
    groups = Path("/proc/self/autogroup")
    at_import = f"import os, pathlib\nseen = pathlib.Path({str(seen)!r})\nseen.write_text("
    if groups.exists():
        rehearse(f"{at_import}pathlib.Path({str(groups)!r}).read_text())")
        assert seen.read_text().strip().endswith(f"nice {NICE}")
    rehearse(f"{at_import}str(os.nice(0)))")
    assert int(seen.read_text()) == min(os.nice(0) + NICE, 19)


def test_the_version_before_may_have_registered_the_same(rehearse) -> None:
    define = "if fake_library.names.setdefault('m', {0}) != {0}: raise ValueError('m differs')"
    assert rehearse(define.format(1), define.format(1)).reload.how == HOT
    found = rehearse(define.format(2), define.format(1))
    assert found.reload.how == FRESH
    assert "import fails: ValueError: m differs (main.py:2)" in found.reload.why


@pytest.mark.parametrize(
    "at_import", ["1 / 0", "import os; os._exit(3)", "import nothing_of_this_name"]
)
def test_a_version_that_cannot_be_loaded_at_all_tells_nothing(rehearse, at_import: str) -> None:
    with pytest.raises(RehearsalError):
        rehearse(at_import)
