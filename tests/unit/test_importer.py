"""A generation as a package in memory: it behaves like any package, and goes away whole."""

import gc
import importlib
import importlib.machinery
import importlib.resources
import importlib.util
import inspect
import linecache
import pickle
import pkgutil
import struct
import sys
import threading
import traceback
import typing
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jinja2
import pytest

from app.package.archive import Archive, source_label
from app.package.importer import GenerationImporter
from app.package.version_folders import VersionFolders
from app.records import Artifact
from tests.support.memory import collected
from tests.support.plugins import artifact_of


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


# --- what was written down by a generation that is gone ------------------------------------

BOOK = "import enum\nclass Kind(enum.Enum):\n    NOVEL = 1\nclass Book:\n    shelf = {}\n"


def test_what_an_earlier_generation_has_pickled_is_of_the_present_one(package):
    files = {"main.py": "from .parts import books", "parts/books.py": BOOK.format(1)}
    first = package(files, name="written")
    books = first.import_entry().books
    book = books.Book()
    book.title = "Emma"
    written = pickle.dumps([book, books.Book, books.Kind.NOVEL])
    first.forget()
    for number in (2, 3):
        made = package(
            {"main.py": "from .parts import books", "parts/books.py": BOOK.format(number)},
            generation=number,
            name="written",
        )
        present = made.import_entry().books
        read, cls, kind = pickle.loads(written)
        assert (type(read), read.title, read.shelf) == (present.Book, "Emma", number)
        assert (cls, kind) == (present.Book, present.Kind.NOVEL)
        made.forget()
    assert names_left("_plugins.written.") == []
    with pytest.raises(ModuleNotFoundError):
        pickle.loads(written)


def test_a_generation_that_was_gone_is_itself_again_once_it_is_loaded(package):
    first = package({"main.py": BOOK.format(1)})
    written = pickle.dumps(first.import_entry().Book())
    first.forget()
    package({"main.py": BOOK.format(2)}, generation=2).import_entry()
    assert pickle.loads(written).shelf == 2
    again = package({"main.py": BOOK.format(1)}, generation=1).import_entry()
    assert again.__name__ == "_plugins.sample.g1.main"
    assert type(pickle.loads(written)) is again.Book


def test_each_generation_reads_as_its_own_and_nobody_gets_one_that_is_half_imported(package):
    first = package({"main.py": BOOK.format(1)})
    written = pickle.dumps(first.import_entry().Book())
    first.forget()
    text = BOOK + "import pickle\ndef read(raw):\n    return pickle.loads(raw).shelf\n"
    second = package({"main.py": text.format(2)}, generation=2).import_entry()
    half = "import tests.unit.test_importer as test\ntest.seen.append(test.read())\n"
    globals()["seen"] = seen = []

    def read_elsewhere():
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: pickle.loads(written).shelf).result()

    globals()["read"] = read_elsewhere
    try:
        files = {"main.py": text.format(3) + f"SEEN = read({written!r})\n"}
        third = package(files, generation=3).import_entry()
        assert third.SEEN == 3
        package({"main.py": half + text.format(4)}, generation=4).import_entry()
    finally:
        del globals()["read"], globals()["seen"]
    assert second.read(written) == 2
    assert third.read(written) == 3
    assert seen == [3]


def test_what_the_present_version_does_not_have_is_named(package):
    first = package({"main.py": BOOK.format(1), "gone.py": BOOK.format(1)})
    book = pickle.dumps(first.import_entry().Book())
    elsewhere = pickle.dumps(importlib.import_module(f"{first.name}.gone").Book())
    first.forget()
    package({"main.py": "x = 1"}, generation=2).import_entry()
    with pytest.raises(AttributeError, match=r"g1\.main' of a generation that is gone"):
        pickle.loads(book)
    with pytest.raises(AttributeError, match=r"g1\.main is gone, and .*g2\.main.* has no 'Book'"):
        _ = sys.modules["_plugins.sample.g1.main"].Book
    with pytest.raises(ModuleNotFoundError):
        pickle.loads(elsewhere)


def test_code_of_a_generation_that_is_gone_does_not_go_on_in_another(package):
    text = "def late():\n    from . import more\n    return more.x\n"
    first = package({"main.py": text, "more.py": "x = 1"})
    late = first.import_entry().late
    first.forget()
    package({"main.py": text, "more.py": "x = 2"}, generation=2).import_entry()
    with pytest.raises(ImportError):
        late()


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
    point: typing.Any = main.Point
    assert hints["return"] == list[point]
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


# --- a generation with a folder -----------------------------------------------------------


@pytest.fixture
def unpacked(tmp_path):
    """Make generations whose files are unpacked, and import their entry."""
    made = []

    def make(files, *, generation=1):
        folders = VersionFolders(tmp_path)
        content = Archive.verified(artifact_of(files))
        made.append(GenerationImporter(content, generation, folders))
        return made[-1], made[-1].import_entry()

    yield make
    for generation in made:
        generation.forget()


FOLDER = {
    "main.py": """\
        from pathlib import Path
        from . import pkg, bare
        def f(): raise ValueError  # here
        """,
    "pkg/__init__.py": "from . import inner",
    "pkg/inner.py": "",
    "bare/deep/below.py": "",
    "bare/text.txt": "text",
    "pkg/templates/page.txt": "{{ 7 * 6 }}",
}


def test_a_module_with_a_folder_has_the_paths_of_its_files(unpacked):
    made, main = unpacked(FOLDER)
    assert main.__file__ == str(made.folder / "main.py")
    assert main.f.__code__.co_filename == main.__file__
    assert main.__spec__.origin == main.__file__
    assert main.pkg.__path__ == [str(made.folder / "pkg")]
    assert sys.modules[made.name].__path__ == [str(made.folder)]
    assert main.bare.__path__ == [str(made.folder / "bare")]
    assert made.place_of(main.__file__, 3) == ("main.py", 3)


def test_a_library_finds_files_modules_and_templates_in_the_folder(unpacked):
    made, main = unpacked(FOLDER)
    files = importlib.resources.files
    assert str(files(made.name)) == str(made.folder)
    assert (made.folder / "bare" / "text.txt") == files(main.bare) / "text.txt"
    with importlib.resources.as_file(files(main.pkg) / "templates") as folder:
        assert (folder / "page.txt").read_text() == "{{ 7 * 6 }}"
    assert pkgutil.get_data(main.__name__, "bare/text.txt") == b"text"
    found = [(m.name, m.ispkg) for m in pkgutil.iter_modules(sys.modules[made.name].__path__)]
    assert found == [("main", False), ("pkg", True)]
    walked = pkgutil.walk_packages(main.pkg.__path__, f"{main.pkg.__name__}.")
    assert [module.name for module in walked] == [f"{made.name}.pkg.inner"]
    for loader in (
        jinja2.PackageLoader(f"{made.name}.pkg"),
        jinja2.FileSystemLoader(made.folder / "pkg" / "templates"),
    ):
        environment = jinja2.Environment(loader=loader, autoescape=True)
        assert environment.get_template("page.txt").render() == "42"
        assert environment.list_templates() == ["page.txt"]


def test_a_folder_of_the_plugin_on_the_path_of_all_finds_nothing(unpacked, monkeypatch):
    made, main = unpacked({"main.py": "from .vendor import shapes", "vendor/shapes.py": ""})
    monkeypatch.syspath_prepend(made.folder / "vendor")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("shapes")
    assert main.shapes.__name__ == f"{made.name}.vendor.shapes"


def test_a_traceback_and_inspect_show_the_lines_of_the_folder(unpacked):
    _, main = unpacked(FOLDER)
    linecache.clearcache()
    with pytest.raises(ValueError, match=r"^$") as caught:
        main.f()
    assert "# here" in "".join(traceback.format_exception(caught.value))
    assert inspect.getsource(main.f).startswith("def f()")


def test_what_somebody_puts_into_the_folder_is_not_run(unpacked):
    made, _ = unpacked(FOLDER)
    made.folder.chmod(0o755)
    (made.folder / "added.py").write_text("1 / 0")
    (made.folder / "pkg" / "inner.py").chmod(0o644)
    (made.folder / "pkg" / "inner.py").write_text("1 / 0")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(".added", made.name)
    importlib.reload(sys.modules[f"{made.name}.pkg.inner"])


def test_no_module_is_found_by_the_place_of_its_folder(unpacked):
    made, main = unpacked(FOLDER)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(f"_plugins.sample.{made.content.digest}.main")
    places = [str(made.folder), str(made.folder.parent), str(made.folder.parent.parent)]
    made.forget()
    for path in (*places, *main.pkg.__path__):
        assert list(pkgutil.iter_modules([path])) == []
        assert importlib.machinery.PathFinder.find_spec("main", [path]) is None


def catalogue(**texts):
    """Return a catalogue of gettext with some translations (GNU gettext's manual, 11.3)."""
    pairs = [("", "Content-Type: text/plain; charset=UTF-8\n"), *sorted(texts.items())]
    head, data = 28, b""
    tables = [b"", b""]
    for number in (0, 1):
        for pair in pairs:
            raw = pair[number].encode()
            tables[number] += struct.pack("<II", len(raw), head + 16 * len(pairs) + len(data))
            data += raw + b"\0"
    sizes = (0x950412DE, 0, len(pairs), head, head + 8 * len(pairs), 0, 0)
    return struct.pack("<7I", *sizes) + tables[0] + tables[1] + data


def test_catalogues_of_translations_are_found(unpacked):
    code = """\
        import gettext
        from pathlib import Path
        said = gettext.translation("shop", Path(__file__).parent / "locale", ["de"])
        """
    _, main = unpacked(
        {"main.py": code, "locale/de/LC_MESSAGES/shop.mo": catalogue(Hello="Grüß Gott")}
    )
    assert main.said.gettext("Hello") == "Grüß Gott"


def test_after_forgetting_nothing_of_the_folder_is_left_in_the_import_system(unpacked):
    made, main = unpacked(FOLDER)
    list(pkgutil.iter_modules(main.pkg.__path__))
    assert importlib.util.find_spec(".missing", made.name) is None
    inspect.getsource(main.f)
    made.forget()
    assert names_left() == []
    for table in (linecache.cache, sys.path_importer_cache):
        assert not [key for key in table if str(key).startswith(str(made.folder))]


def test_a_forgotten_generation_with_a_folder_is_collected_whole(tmp_path):
    made = GenerationImporter(Archive.verified(artifact_of(WHOLE)), 1, VersionFolders(tmp_path))
    main = made.import_entry()
    references = [weakref.ref(item) for item in (main, main.Point, main.inner.Inner, made)]
    made.forget()
    del main, made
    assert [reference for reference in references if not collected(reference)] == []


SUFFIX = importlib.machinery.EXTENSION_SUFFIXES[0]


@pytest.fixture(scope="session")
def compiled():
    """Return a compiled module of Python's own, under the name that it wants."""
    path = importlib.util.find_spec("_queue").origin
    if not path or not path.endswith(".so"):
        pytest.skip("this Python has its modules built in")
    return Path(path).read_bytes()


def test_a_compiled_module_beside_the_code_is_imported(unpacked, package, compiled):
    files = {"main.py": "from . import _queue\nx = _queue.SimpleQueue", f"_queue{SUFFIX}": compiled}
    made, main = unpacked(files)
    assert main._queue.__file__ == str(made.folder / f"_queue{SUFFIX}")
    made.forget()
    assert names_left() == []
    with pytest.raises(ImportError, match="loaded from a folder, and this host has none"):
        package(files).import_entry()


def test_a_compiled_module_that_was_changed_on_disk_is_not_run(unpacked, compiled):
    files = {"main.py": "", f"_queue{SUFFIX}": compiled}
    made, _ = unpacked(files)
    path = made.folder / f"_queue{SUFFIX}"
    path.chmod(0o755)
    path.write_bytes(compiled[:-1] + b"x")
    with pytest.raises(ImportError, match="is not what was published"):
        importlib.import_module("._queue", made.name)


def test_a_library_in_c_is_opened_by_its_path(unpacked, compiled):
    code = """\
        import ctypes
        from pathlib import Path
        entry = ctypes.CDLL(Path(__file__).parent / "native" / "lib.so").PyInit__queue
        """
    _, main = unpacked({"main.py": code, "native/lib.so": compiled})
    assert main.entry


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
