"""A generation as a package in memory: it behaves like any package, and goes away whole."""

import gc
import importlib
import importlib.util
import inspect
import io
import json
import linecache
import marshal
import pickle
import sys
import threading
import traceback
import typing
import weakref
import zipfile

import pytest

from app.errors import ArtifactError
from app.package.archive import META_FILE, Archive, make_pyc, source_label
from app.package.importer import GenerationImporter
from app.records import Artifact
from tests.support.memory import collected
from tests.support.plugins import artifact_of, sha256


@pytest.fixture
def package():
    """Make generations from texts without a plugin's contract; they are forgotten at the end."""
    made = []

    def make(files, *, generation=1, name="sample", entry="main:new_plugin"):
        artifact = files if isinstance(files, Artifact) else artifact_of(files, name, entry=entry)
        made.append(GenerationImporter(Archive.verified(artifact), generation))
        return made[-1]

    yield make
    for generation in made:
        generation.forget()


@pytest.fixture
def module(package):
    """Import the entry of a generation that is made from texts."""
    return lambda files, **options: package(files, **options).import_entry()


def names_left(name="_plugins.sample."):
    return sorted(known for known in sys.modules if known.startswith(name))


# --- imports -------------------------------------------------------------------------------


def test_a_generation_is_a_package_of_its_own_name(module):
    main = module({"main.py": "x = __name__, __package__, __file__"}, generation=7)
    assert main.x == ("_plugins.sample.g7.main", "_plugins.sample.g7", main.__file__)
    assert main.__file__.startswith("sample-")
    assert main.__file__.endswith(".pyz/main.py")


def test_relative_imports_reach_modules_packages_and_bare_folders(module):
    main = module(
        {
            "main.py": """\
                from . import helper, pkg, bare
                from .helper import value
                from .pkg import inner
                from .pkg.inner import deep
                from .bare.below import low
                from .bare import below
                """,
            "helper.py": "value = 1",
            "pkg/__init__.py": "from . import inner\nfrom .. import helper\n",
            "pkg/inner.py": "from ..helper import value as deep\n",
            "bare/below.py": "low = 3",
        }
    )
    assert (main.value, main.deep, main.low) == (1, 1, 3)
    assert main.pkg.helper is main.helper
    assert main.bare.below is main.below


def test_a_root_package_with_an_init_is_imported_first(module):
    main = module(
        {"__init__.py": "order = ['root']", "main.py": "from . import order\norder.append('main')"}
    )
    assert main.order == ["root", "main"]


def test_a_package_goes_before_a_module_of_its_name_as_in_python(module):
    main = module(
        {"main.py": "from .both import x", "both.py": "x = 1", "both/__init__.py": "x = 2"}
    )
    assert main.x == 2


def test_circular_imports_work_as_in_python(module):
    main = module(
        {
            "main.py": "from . import a\nfrom .a import f\nx = f()",
            "a.py": "from . import b\ndef f(): return b.g()",
            "b.py": "from . import a\ndef g(): return 'round'",
        }
    )
    assert main.x == "round"


def test_an_import_inside_a_function_and_in_a_thread_works_later(module):
    main = module(
        {"main.py": "def late():\n    from .helper import x\n    return x\n", "helper.py": "x = 5"}
    )
    seen = []
    thread = threading.Thread(target=lambda: seen.append(main.late()))
    thread.start()
    thread.join(10)
    assert seen == [5]


def test_many_threads_import_one_module_once(module):
    main = module(
        {
            "main.py": "def late():\n    from . import slow\n    return slow\n",
            "slow.py": "import threading\nthreading.Event().wait(0.02)\nloaded = object()",
        }
    )
    seen, barrier = [], threading.Barrier(8)

    def load():
        barrier.wait(10)
        seen.append(main.late().loaded)

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(seen) == 8
    assert len(set(map(id, seen))) == 1


def test_a_missing_optional_module_can_be_caught(module):
    main = module(
        {
            "main.py": """\
                found = []
                try:
                    import no_such_module_anywhere
                except ImportError as error:
                    found.append(type(error).__name__)
                try:
                    from . import missing
                except ImportError as error:
                    found.append(type(error).__name__)
                try:
                    from .missing import x
                except ImportError as error:
                    found.append(error.name)
                """
        }
    )
    assert main.found[0] == "ModuleNotFoundError"
    assert main.found[1] in {"ImportError", "ModuleNotFoundError"}
    assert main.found[2].endswith(".missing")


def test_a_missing_module_can_be_looked_for_without_an_exception(module):
    main = module(
        {
            "main.py": "import importlib.util\n"
            "x = importlib.util.find_spec('.missing', __package__)\n"
            "y = importlib.util.find_spec('.main', __package__)"
        }
    )
    assert main.x is None
    assert main.y is not None


def test_an_own_module_cannot_be_imported_absolutely(module):
    with pytest.raises(ModuleNotFoundError):
        module({"main.py": "import helper", "helper.py": ""})


def test_two_plugins_with_modules_of_one_name_do_not_collide(module):
    files = {"main.py": "from .helper import x", "helper.py": "x = 'one'"}
    one = module(files, name="one")
    two = module(files | {"helper.py": "x = 'two'"}, name="two")
    assert (one.x, two.x) == ("one", "two")


def test_two_generations_live_side_by_side(module):
    old = module({"main.py": "from .helper import x\nclass A: pass", "helper.py": "x = 1"})
    new = module(
        {"main.py": "from .helper import x\nclass A: pass", "helper.py": "x = 2"}, generation=2
    )
    assert (old.x, new.x) == (1, 2)
    assert old.A is not new.A
    assert pickle.loads(pickle.dumps(old.A())).__class__ is old.A


def test_the_same_generation_twice_gets_names_of_its_own(package):
    artifact = artifact_of({"main.py": "state = []"})
    one, two = package(artifact), package(artifact)
    assert one.name != two.name
    assert one.import_entry() is not two.import_entry()
    one.forget()
    assert two.name in sys.modules
    third = package(artifact)
    assert third.name == "_plugins.sample.g1"


def test_reload_and_invalidate_caches_do_no_harm(module):
    main = module({"main.py": "import builtins\ncount = globals().get('count', 0) + 1"})
    importlib.invalidate_caches()
    assert importlib.reload(main).count == 2


def test_invalid_names_are_not_found(package):
    made = package({"main.py": "", "a b.py": ""})
    for name in ("nothing", "main.x", "..", "main.py"):
        with pytest.raises(ImportError):
            importlib.import_module(f"{made.name}.{name}")


# --- what Python finds out about a module --------------------------------------------------

RICH = """\
from __future__ import annotations
import dataclasses, enum, typing, collections

@dataclasses.dataclass
class Point:
    x: int
    of: typing.ClassVar[Kind]
    kind: Kind = None

    def double(self) -> int:
        return self.x * 2

class Kind(enum.Enum):
    A = "a"
    B = "b"

Pair = collections.namedtuple("Pair", "l r")

def function(point: Point, kind: Kind | None = None) -> list[Point]:
    return [point]
"""


def test_dataclasses_enumerations_pickle_and_type_hints_work(module):
    main = module({"main.py": RICH})
    assert [field.name for field in __import__("dataclasses").fields(main.Point)] == ["x", "kind"]
    for item in (main.Point(1, main.Kind.A), main.Kind.B, main.Pair(1, 2), main.function):
        assert pickle.loads(pickle.dumps(item)) == item
    hints = typing.get_type_hints(main.function)
    assert hints["point"] is main.Point
    assert hints["return"] == list[main.Point]  # type: ignore[name-defined]
    assert typing.get_type_hints(main.Point)["kind"] is main.Kind


def test_inspect_shows_the_source(module):
    main = module({"main.py": RICH})
    assert inspect.getsource(main.Point.double).strip() == (
        "def double(self) -> int:\n        return self.x * 2"
    )
    assert inspect.getsource(main.Kind).startswith("class Kind")
    assert inspect.getsource(main) == RICH
    assert inspect.getmodule(main.function) is main


def test_a_source_in_another_encoding_is_shown(module):
    main = module({"main.py": b"# coding: latin-1\ndef f():\n    return '\xe9'\n"})
    assert "é" in inspect.getsource(main.f)
    assert main.f() == "é"


def test_a_traceback_shows_the_line_of_the_generation_that_raised(module):
    old = module({"main.py": "def f():\n    raise ValueError  # the old line\n"})
    new = module(
        {"main.py": "# another\ndef f():\n    raise ValueError  # the new line\n"}, generation=2
    )
    for main, shown in ((new, "new"), (old, "old")):
        try:
            main.f()
        except ValueError as error:
            text = "".join(traceback.format_exception(error))
        assert f"# the {shown} line" in text
        assert "main.py" in text


def test_a_traceback_after_the_generation_was_forgotten_shows_its_line_still(package):
    made = package({"main.py": "def f():\n    raise ValueError  # the old line\n"})
    main = made.import_entry()
    made.forget()
    package({"main.py": "\n\n\n"}, generation=2).import_entry()
    try:
        main.f()
    except ValueError as error:
        assert "# the old line" in "".join(traceback.format_exception(error))  # noqa: PT017


# --- resources -----------------------------------------------------------------------------

DATA = {
    "main.py": """\
        import importlib.resources, pkgutil
        root = importlib.resources.files(__package__)
        """,
    "pkg/__init__.py": "",
    "pkg/data.bin": bytes(range(256)),
    "bare/deep/text.txt": "ünï",
    "top.txt": "top",
}


def test_resources_are_read_from_the_root_a_package_and_a_bare_folder(module, package):
    main = module(DATA)
    files = importlib.resources.files
    assert main.root.joinpath("top.txt").read_text() == "top"
    assert main.root.joinpath("bare/deep/text.txt").read_text(encoding="utf-8") == "ünï"
    assert main.root.joinpath("bare").joinpath("deep").joinpath("text.txt").is_file()
    assert not main.root.joinpath("missing.txt").exists()
    assert files(f"{main.__package__}.pkg").joinpath("data.bin").read_bytes() == bytes(range(256))
    assert (
        files(f"{main.__package__}.bare.deep").joinpath("text.txt").read_text(encoding="utf-8")
        == "ünï"
    )
    with main.root.joinpath("top.txt").open("rb") as file:
        assert file.read() == b"top"


def test_the_folders_listing_shows_what_the_plugin_holds_and_nothing_else(module):
    main = module(DATA)
    assert {entry.name for entry in main.root.iterdir()} == {"main.py", "pkg", "bare", "top.txt"}


def test_a_resource_becomes_a_file_for_a_while(module):
    main = module(DATA)
    with importlib.resources.as_file(main.root.joinpath("pkg/data.bin")) as path:
        assert path.read_bytes() == bytes(range(256))
    assert not path.exists()


def test_pkgutil_reads_data_beside_a_module_and_in_a_package(module):
    main = module(DATA)
    assert main.pkgutil.get_data(main.__name__, "top.txt") == b"top"
    assert main.pkgutil.get_data(f"{main.__package__}.pkg", "data.bin") == bytes(range(256))
    with pytest.raises(OSError):
        main.pkgutil.get_data(main.__name__, "missing.txt")


def test_resources_can_be_read_in_many_threads_at_once(module):
    blobs = {f"d/{n}.bin": bytes([n]) * 50_000 for n in range(8)}
    main = module({**DATA, **blobs})
    wrong, barrier = [], threading.Barrier(8)

    def read(number):
        barrier.wait(10)
        for _ in range(20):
            if main.root.joinpath(f"d/{number}.bin").read_bytes() != bytes([number]) * 50_000:
                wrong.append(number)

    threads = [threading.Thread(target=read, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert wrong == []


# --- verification --------------------------------------------------------------------------


def test_a_byte_that_is_flipped_anywhere_is_noticed_before_anything_is_read(monkeypatch):
    artifact = artifact_of({"main.py": "x = 1\n", "data.txt": "data"})

    def never(*_args):
        raise AssertionError("unmarshalled")

    monkeypatch.setattr(marshal, "loads", never)
    monkeypatch.setattr(zipfile, "ZipFile", never)
    size = len(artifact.archive)
    for position in {*range(0, size, 7), size - 1}:
        raw = bytearray(artifact.archive)
        raw[position] ^= 1 << (position % 8)
        damaged = Artifact(artifact.plugin, artifact.digest, artifact.sha256, bytes(raw))
        with pytest.raises(ArtifactError, match="changed or damaged"):
            Archive.verified(damaged)


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_an_archive_that_is_cut_off_is_noticed(cut):
    artifact = artifact_of({"main.py": "x = 1\n"})
    damaged = Artifact(artifact.plugin, artifact.digest, artifact.sha256, artifact.archive[:cut])
    with pytest.raises(ArtifactError):
        Archive.verified(damaged)


def packed(meta, **files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        if meta is not None:
            archive.writestr(META_FILE, meta)
        for name, content in files.items():
            archive.writestr(name, content)
    raw = buffer.getvalue()
    return Artifact("sample", "0" * 32, sha256(raw), raw)


GOOD = {"entry": "main:new_plugin", "config": {}, "magic": importlib.util.MAGIC_NUMBER.hex()}


@pytest.mark.parametrize(
    "meta",
    [
        None,
        "",
        "{",
        "{}",
        "[]",
        "5",
        "null",
        '"x"',
        b"\xff",
        json.dumps(GOOD | {"magic": "zz"}),
        json.dumps(GOOD | {"magic": 5}),
        json.dumps({k: v for k, v in GOOD.items() if k != "entry"}),
        json.dumps({k: v for k, v in GOOD.items() if k != "config"}),
    ],
)
def test_an_archive_of_another_kind_is_an_error_of_the_artifact_though_its_hash_fits(meta):
    # Who writes plugin_versions by hand must not stop the other plugins.
    with pytest.raises(ArtifactError):
        Archive.verified(packed(meta))


@pytest.mark.parametrize("raw", [b"", b"x", b"PK\x05\x06" + b"\0" * 18, b"PK\x03\x04" * 10])
def test_bytes_that_are_no_archive_are_an_error_of_the_artifact(raw):
    with pytest.raises(ArtifactError):
        Archive.verified(Artifact("sample", "0" * 32, sha256(raw), raw))


def test_an_encrypted_archive_is_an_error_of_the_artifact():
    raw = bytearray(packed(json.dumps(GOOD)).archive)
    raw[raw.index(b"PK\x03\x04") + 6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(ArtifactError):
        Archive.verified(Artifact("sample", "0" * 32, sha256(bytes(raw)), bytes(raw)))


def repacked(good, change):
    """Return an artifact again whose files `change(name, raw)` has changed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good.archive)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    raw = buffer.getvalue()
    return Artifact("sample", good.digest, sha256(raw), raw)


def test_bytecode_of_another_python_is_compiled_from_the_source(package):
    def change(name, raw):
        if name == META_FILE:
            return json.dumps(json.loads(raw) | {"magic": "00000000"}).encode()
        return b"\0" * 40 if name.endswith(".pyc") else raw

    good = artifact_of({"main.py": "x = 1\n", "pkg/__init__.py": "y = 2\n"})
    made = package(repacked(good, change))
    assert made.import_entry().x == 1
    assert importlib.import_module(f"{made.name}.pkg").y == 2


def test_bytecode_of_this_python_is_not_compiled_again(package):
    other = make_pyc(b"", compile("x = 2", "main.py", "exec"))
    good = artifact_of({"main.py": "x = 1\n"})
    made = package(repacked(good, lambda name, raw: other if name == "main.pyc" else raw))
    assert made.import_entry().x == 2  # the source says 1


def test_the_place_of_a_frame_is_that_in_the_plugins_folder(package):
    made = package({"main.py": ""})
    label = source_label("sample", made.content.digest)
    assert made.place_of(f"{label}pkg/a.py", 3) == ("pkg/a.py", 3)
    assert made.place_of("/usr/lib/python3/json.py", 3) is None
    assert made.place_of(f"{label}pkg/a.py", None) is None


# --- forgetting ----------------------------------------------------------------------------

WHOLE = {
    "main.py": RICH + "\nfrom . import pkg, bare\nfrom .pkg import inner\n",
    "pkg/__init__.py": "",
    "pkg/inner.py": "class Inner: pass\n",
    "bare/x.py": "",
    "data.txt": "x",
}


def test_after_forgetting_nothing_is_left_in_the_import_system(package):
    made = package(WHOLE)
    main = made.import_entry()
    inspect.getsource(main.Point)
    try:
        main.function()
    except TypeError as error:
        traceback.format_exception(error)
    importlib.resources.files(made.name).joinpath("data.txt").read_text()
    label = made.content.label
    assert names_left()
    made.forget()
    assert names_left() == []
    assert not [key for key in linecache.cache if key.startswith(label)]
    assert not [key for key in sys.path_importer_cache if key.startswith(label)]
    assert not hasattr(sys.modules["_plugins.sample"], "g1")
    made.forget()  # once more does no harm
    with pytest.raises(ImportError):
        importlib.import_module(f"{made.name}.main")


def test_a_forgotten_generation_is_collected_whole(package):
    made = GenerationImporter(Archive.verified(artifact_of(WHOLE)), 1)
    main = made.import_entry()
    assert main.Point(1).double() == 2
    assert inspect.getsource(main.Point)
    references = [
        weakref.ref(item)
        for item in (main, main.Point, main.Kind, main.inner.Inner, made, main.function)
    ]
    made.forget()
    del main, made
    assert [reference for reference in references if not collected(reference)] == []


def test_forgetting_one_generation_leaves_the_other_of_the_same_source_its_lines(package):
    artifact = artifact_of({"main.py": "def f():\n    raise ValueError  # here\n"})
    one, two = package(artifact, generation=1), package(artifact, generation=2)
    one.import_entry()
    main = two.import_entry()
    inspect.getsource(main.f)
    one.forget()
    assert names_left("_plugins.sample.g1") == []
    assert "# here" in inspect.getsource(main.f)
    assert linecache.cache.keys() & {main.__file__}


def test_forgetting_g1_leaves_g10_and_other_plugins_alone(package):
    one, ten = package({"main.py": ""}, generation=1), package({"main.py": ""}, generation=10)
    other = package({"main.py": ""}, generation=1, name="sample2")
    for made in (one, ten, other):
        made.import_entry()
    one.forget()
    assert names_left("_plugins.sample.") == ["_plugins.sample.g10", "_plugins.sample.g10.main"]
    assert f"{other.name}.main" in sys.modules


def test_a_failed_import_leaves_nothing_once_it_is_forgotten():
    made = GenerationImporter(
        Archive.verified(
            artifact_of({"main.py": "from . import a\n1 / 0", "a.py": "class A: pass"})
        ),
        1,
    )
    with pytest.raises(ZeroDivisionError):
        made.import_entry()
    reference = weakref.ref(sys.modules[f"{made.name}.a"].A)
    made.forget()
    assert names_left() == []
    del made
    assert collected(reference)


def test_hundred_generations_leave_no_more_than_one():
    gc.collect()
    before = (len(sys.modules), len(linecache.cache), len(sys.path_importer_cache))
    for generation in range(100):
        made = GenerationImporter(Archive.verified(artifact_of(WHOLE)), generation)
        main = made.import_entry()
        inspect.getsource(main.Point)
        made.forget()
        after = (len(sys.modules), len(linecache.cache), len(sys.path_importer_cache))
        if generation == 0:
            before = after
    assert after == before
    del main, made
    gc.collect()
    assert not [
        item
        for item in gc.get_objects()
        if type(item).__name__ == "Point" and type(item).__module__.startswith("_plugins.sample")
    ]
