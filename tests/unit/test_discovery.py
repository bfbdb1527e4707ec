"""Folders become sources: what is part of a plugin, what is refused, and what its digest says."""

import errno
import importlib.metadata
import os
import stat
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import DiscoveryError, TooLargeError
from app.publishing import discovery, stamps
from app.publishing.discovery import (
    digest_of,
    inside,
    list_folders,
    read_file,
    read_source,
)
from app.publishing.ignore import is_part
from app.publishing.stamps import folder_stamp, large_stamp, same_large
from app.publishing.trials.trial import _remedy
from app.records import is_plugin_name


def refusal(root: Path, folder: Path, name: str = "sample") -> DiscoveryError:
    with pytest.raises(DiscoveryError) as caught:
        read_source(root, folder, name)
    assert caught.value.plugin == name
    assert caught.value.phase == "discover"
    return caught.value


# --- names ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "a1", "my_plugin", "a" * 63, "z_", "a__b"])
def test_a_plugin_name(name):
    assert is_plugin_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "A", "1a", "_a", "a-b", "a.b", "a" * 64, "ä", "a b", "a\n", "a/b", "..", "a\0", "ª", "aǅ"],
)
def test_no_plugin_name(name):
    assert not is_plugin_name(name)


def test_a_folder_of_another_name_is_refused_and_the_rule_is_named(make_plugin, plugins_root):
    error = refusal(plugins_root, make_plugin({"main.py": ""}, "My-Plugin"), "My-Plugin")
    assert "'My-Plugin'" in error.message
    assert "a-z" in error.message


@pytest.mark.parametrize(
    "name",
    [
        ".hidden",
        ".git",
        ".main.py.swp",
        ".main.py.swo",
        "main.py~",
        "#main.py#",
        ".#main.py",
        "4913",
        ".main.py.AbC123",
        "sedAbC123",
        "main.py___jb_tmp___",
        "main.py___jb_old___",
        "__pycache__",
        "main.pyc",
        "main.pyo",
        "x.tmp",
        "x.temp",
        "x.bak",
        "x.orig",
        "x.rej",
        "x.part",
        "x.swp",
        ".DS_Store",
        "..data",
        ".",
    ],
)
def test_what_tools_leave_is_no_part_of_a_plugin(name):
    assert not is_part(name)


@pytest.mark.parametrize(
    "name",
    [
        "main.py",
        "plugin.yaml",
        "data.json",
        "sedan.py",
        "sed.py",
        "sedabc1234",
        "4913.txt",
        "a#b",
        "README",
        "tmp",
        "tmp.py",
        "bak.txt",
        "#a",
        "x.tmpl",
        "partial.part.txt",
        "pycache",
        "x.py.txt",
    ],
)
def test_what_a_person_writes_is_part_of_a_plugin(name):
    assert is_part(name)


def test_a_hidden_file_with_a_line_break_in_its_name_is_hidden_too():
    assert not is_part(".secret\nfile")
    assert not is_part("a\nb~")


def test_junk_beside_the_source_changes_neither_files_nor_digest(make_plugin, plugins_root):
    folder = make_plugin({"main.py": "x = 1", "data/a.txt": "a"})
    before = read_source(plugins_root, folder, "sample")
    junk = [
        ".main.py.swp",
        "main.py~",
        "#main.py#",
        "__pycache__/main.cpython-311.pyc",
        "4913",
        ".git/HEAD",
        "data/.x",
        "data/a.txt.orig",
        ".benana.json",
        "main.pyc",
    ]
    make_plugin(dict.fromkeys(junk, b"junk"))
    (folder / ".#main.py").symlink_to("someone@host.1234:567")  # emacs' lock: a broken link
    after = read_source(plugins_root, folder, "sample")
    assert after == before
    assert sorted(after.files) == ["data/a.txt", "main.py"]


def test_folders_are_listed_sorted_without_files_and_junk(plugins_root):
    for name in ("b", "a", ".git", "__pycache__", "x.bak", "Upper"):
        (plugins_root / name).mkdir()
    (plugins_root / "file").write_text("")
    (plugins_root / "broken").symlink_to(plugins_root / "nowhere")
    (plugins_root / "linked").symlink_to(plugins_root / "a")
    assert list_folders(plugins_root) == ["Upper", "a", "b", "linked"]


def test_a_missing_root_is_an_error_and_not_an_empty_list(tmp_path):
    with pytest.raises(OSError):
        list_folders(tmp_path / "missing")


def test_a_link_to_itself_in_the_root_hides_no_other_folder(plugins_root):
    (plugins_root / "good").mkdir()
    (plugins_root / "loop").symlink_to("loop")
    assert list_folders(plugins_root) == ["good"]


# --- entries -------------------------------------------------------------------------------


def test_main_is_the_entry_even_beside_plugin(read_plugin):
    source = read_plugin({"main.py": "", "plugin.py": ""})
    assert source.manifest.entry == "main:new_plugin"


def test_plugin_is_the_entry_without_main(read_plugin):
    assert read_plugin({"plugin.py": ""}).manifest.entry == "plugin:new_plugin"
    assert read_plugin({"plugin.py": "", "plugin.yaml": "version: 1"}, "b").manifest.entry == (
        "plugin:new_plugin"
    )


def test_a_folder_without_an_entry_says_what_it_holds(make_plugin, plugins_root):
    assert "readme.txt" in refusal(plugins_root, make_plugin({"readme.txt": ""})).message
    assert "no file" in refusal(plugins_root, make_plugin({}, "empty"), "empty").message


@pytest.mark.parametrize("files", [{"pkg/sub.py": ""}, {"pkg/sub/__init__.py": ""}])
def test_an_entry_may_lie_deeper(read_plugin, files):
    source = read_plugin({**files, "plugin.yaml": "entry: pkg.sub:make"})
    assert source.manifest.entry == "pkg.sub:make"


def test_an_entry_whose_file_is_missing_is_refused(make_plugin, plugins_root):
    folder = make_plugin({"main.py": "", "plugin.yaml": "entry: other:make"})
    assert "other.py" in refusal(plugins_root, folder).message


def test_a_folder_that_is_gone_is_refused(plugins_root):
    assert "cannot be read" in refusal(plugins_root, plugins_root / "sample").message


def test_a_file_instead_of_a_folder_is_refused(plugins_root):
    (plugins_root / "sample").write_text("")
    assert "cannot be read" in refusal(plugins_root, plugins_root / "sample").message


def test_bytes_are_taken_as_they_are(read_plugin):
    raw = bytes(range(256)) + b"\r\n\r"
    source = read_plugin({"main.py": "", "data/blob": raw})
    assert source.files["data/blob"] == raw
    assert source.name == "sample"


def test_empty_folders_and_files_are_no_trouble(make_plugin, plugins_root):
    folder = make_plugin({"main.py": ""})
    before = read_source(plugins_root, folder, "sample").digest
    (folder / "empty").mkdir()
    assert read_source(plugins_root, folder, "sample").digest == before


def test_sockets_and_pipes_are_passed_over(make_plugin, plugins_root):
    folder = make_plugin({"main.py": ""})
    os.mkfifo(folder / "pipe")
    assert list(read_source(plugins_root, folder, "sample").files) == ["main.py"]


@pytest.mark.parametrize("file", ["main.py", "sub/models.py", "plugin.yaml", "requirements.txt"])
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_source_that_is_no_regular_file_is_named(make_plugin, plugins_root, file, kind):
    folder = make_plugin({"main.py": "", "sub/__init__.py": ""})
    (folder / file).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(folder / file)
    else:
        os.mknod(folder / file, stat.S_IFSOCK | 0o600)
    error = refusal(plugins_root, folder)
    assert error.file == file
    assert error.message == f"{file} is a {kind}, expected a file"


@pytest.mark.parametrize("target", ["/dev/zero", "/dev/null"])
def test_a_device_is_refused_or_passed_over(tmp_path, target):
    # The root is the whole machine, so that the link does not lead out of it.
    folder = tmp_path / "sample"
    folder.mkdir()
    (folder / "main.py").write_text("")
    (folder / "data").symlink_to(target)
    assert list(read_source(Path("/"), folder, "sample").files) == ["main.py"]
    (folder / "endless.py").symlink_to(target)
    assert refusal(Path("/"), folder).message == "endless.py is a device, expected a file"


def test_a_file_that_becomes_a_pipe_between_look_and_read_is_named(
    make_plugin, plugins_root, monkeypatch
):
    folder = make_plugin({"main.py": "", "data": "x"})

    def swapped(path, limit):
        if path.endswith("data"):
            (folder / "data").unlink()
            os.mkfifo(folder / "data")
        return read_file(path, limit)

    monkeypatch.setattr(discovery, "read_file", swapped)
    error = refusal(plugins_root, folder)
    assert (error.file, error.message) == ("data", "data cannot be read: it is no regular file")


# --- symlinks ------------------------------------------------------------------------------


def test_a_linked_file_inside_of_the_root_is_read(make_plugin, plugins_root):
    shared = make_plugin({"shared.py": "x = 1"}, "shared")
    folder = make_plugin({"main.py": ""})
    (folder / "helper.py").symlink_to(shared / "shared.py")
    (folder / "relative.py").symlink_to("../shared/shared.py")
    (folder / "folder").symlink_to(shared)
    files = read_source(plugins_root, folder, "sample").files
    assert files["helper.py"] == files["relative.py"] == files["folder/shared.py"] == b"x = 1"


@pytest.mark.parametrize("kind", ["file", "folder", "chain"])
def test_a_link_that_leaves_the_root_is_refused_by_name(make_plugin, plugins_root, tmp_path, kind):
    outside = tmp_path / "plugins-evil"
    outside.mkdir()
    (outside / "secret.py").write_text("x = 1")
    folder = make_plugin({"main.py": ""})
    target = outside / "secret.py" if kind == "file" else outside
    if kind == "chain":
        (plugins_root / "step").symlink_to(outside)
        target = plugins_root / "step" / "secret.py"
    (folder / "link").symlink_to(target)
    error = refusal(plugins_root, folder)
    assert "link" in error.message
    assert error.file == "link"


def test_a_file_behind_a_linked_folder_that_leaves_is_not_read(make_plugin, plugins_root, tmp_path):
    (tmp_path / "outside").mkdir()
    other = make_plugin({"x.py": ""}, "other")
    (other / "deep").symlink_to(tmp_path / "outside")
    folder = make_plugin({"main.py": ""})
    (folder / "sub").symlink_to(other)
    assert "leads out" in refusal(plugins_root, folder).message


def test_a_plugin_folder_that_is_a_link_out_of_the_root_is_refused(plugins_root, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "main.py").write_text("")
    (plugins_root / "sample").symlink_to(tmp_path / "elsewhere")
    assert "leads out" in refusal(plugins_root, plugins_root / "sample").message


def test_a_plugin_folder_that_is_a_link_within_the_root_is_read(make_plugin, plugins_root):
    make_plugin({"main.py": "x = 1"}, "original")
    (plugins_root / "sample").symlink_to("original")
    assert read_source(plugins_root, plugins_root / "sample", "sample").files == {
        "main.py": b"x = 1"
    }


def test_the_root_itself_may_be_a_link(tmp_path, make_plugin, plugins_root):
    make_plugin({"main.py": "x = 1"})
    link = tmp_path / "link"
    link.symlink_to(plugins_root)
    assert read_source(link, link / "sample", "sample").files == {"main.py": b"x = 1"}


def test_a_path_beside_the_root_with_its_name_as_a_prefix_is_outside(tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins-evil").mkdir()
    assert inside(tmp_path / "plugins", tmp_path / "plugins" / "a")
    assert inside(tmp_path / "plugins", tmp_path / "plugins")
    assert not inside(tmp_path / "plugins", tmp_path / "plugins-evil")
    assert not inside(tmp_path / "plugins", tmp_path / "plugins" / ".." / "x")


def test_a_broken_link_is_passed_over(make_plugin, plugins_root):
    folder = make_plugin({"main.py": ""})
    (folder / "broken.py").symlink_to(folder / "missing.py")
    assert list(read_source(plugins_root, folder, "sample").files) == ["main.py"]


def test_a_link_to_itself_is_passed_over_or_refused_by_name(make_plugin, plugins_root):
    folder = make_plugin({"main.py": ""})
    (folder / "loop").symlink_to("loop")
    try:
        files = read_source(plugins_root, folder, "sample").files
    except DiscoveryError as error:
        assert "loop" in str(error)  # noqa: PT017
    else:
        assert list(files) == ["main.py"]


@pytest.mark.parametrize("links", [{"up": ".."}, {"here": "."}, {"a": ".", "b": "."}])
def test_a_folder_that_links_to_its_own_parents_ends(make_plugin, plugins_root, links):
    folder = make_plugin({"main.py": "", "sub/x.py": ""})
    for name, target in links.items():
        (folder / name).symlink_to(target)
    assert "too deep" in refusal(plugins_root, folder).message


# --- limits --------------------------------------------------------------------------------


def test_too_many_files_are_refused(make_plugin, plugins_root, monkeypatch):
    monkeypatch.setattr(discovery, "MAX_FILES", 3)
    files = {"main.py": "", "a": "", "b/c": ""}
    assert len(read_source(plugins_root, make_plugin(files), "sample").files) == 3
    assert "more than" in refusal(plugins_root, make_plugin({"d": ""})).message


def test_too_many_bytes_are_refused(make_plugin, plugins_root, monkeypatch):
    monkeypatch.setattr(discovery, "MAX_BYTES", 10)
    folder = make_plugin({"main.py": b"x" * 4, "a/b": b"y" * 6})
    assert read_source(plugins_root, folder, "sample")
    assert "more than" in refusal(plugins_root, make_plugin({"c": b"z"})).message


def test_a_module_that_is_too_large_to_compile_is_refused(make_plugin, plugins_root):
    module = b"x = 1\n" + b"#" * 4 * 1024 * 1024
    folder = make_plugin({"main.py": "", "sub/table.py": module, "data.csv": module * 2})
    error = refusal(plugins_root, folder)
    assert (error.file, error.line) == ("sub/table.py", None)
    assert "4,194,310 bytes, expected 4,194,304 at most" in error.message
    assert "BENANA_MAX_SOURCE_MB" in error.message
    assert read_source(plugins_root, folder, "sample", max_module_mb=5)
    (folder / "sub" / "table.py").write_bytes(module[6:])
    assert len(read_source(plugins_root, folder, "sample").files) == 3


@pytest.fixture
def looked_at(monkeypatch):
    """The names that are read from folders, one for each."""
    names = []
    scandir = os.scandir

    class Counted:
        def __init__(self, path):
            self._entries = scandir(path)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._entries.close()

        def __iter__(self):
            for entry in self._entries:
                names.append(entry.name)
                yield entry

    monkeypatch.setattr(os, "scandir", Counted)
    return names


@pytest.mark.parametrize("name", ["data/f{n}", "f{n}", "data/f{n}.pyc", "d{n}/x"])
def test_a_huge_folder_is_neither_walked_nor_read_to_its_end(
    make_plugin, plugins_root, monkeypatch, looked_at, name
):
    for module in (discovery, stamps):
        monkeypatch.setattr(module, "MAX_FILES", 10)
        monkeypatch.setattr(module, "MAX_ENTRIES", 60)
    folder = make_plugin({"main.py": ""} | {name.format(n=n): "" for n in range(100)})
    read = []
    monkeypatch.setattr(discovery, "read_file", lambda path, _: read.append(path) or b"")  # type: ignore[func-returns-value]
    with pytest.raises(TooLargeError, match="more than 10 files"):
        read_source(plugins_root, folder, "sample")
    assert [path for path in read if not path.endswith("plugin.yaml")] == []
    assert len(looked_at) <= 62
    looked_at.clear()
    folder_stamp(folder)
    assert len(looked_at) <= 62
    looked_at.clear()
    stamp = large_stamp(folder)
    assert len(looked_at) <= 62
    looked_at.clear()
    assert same_large(stamp)
    assert looked_at == []


def test_a_large_folder_differs_once_something_is_taken_away_or_added(make_plugin):
    folder = make_plugin({"main.py": "", "data/a": "", "data/b": ""})
    stamp = large_stamp(folder)
    make_plugin({"data/a": "longer"})
    assert same_large(stamp)
    (folder / "data" / "a").unlink()
    assert not same_large(stamp)
    assert same_large(stamp, root_only=True)
    (folder / "more").touch()
    assert not same_large(stamp, root_only=True)
    assert not same_large(large_stamp(folder / "missing"))


def test_deep_folders_are_refused(make_plugin, plugins_root):
    assert (
        "too deep"
        in refusal(plugins_root, make_plugin({"main.py": "", "a/" * 20 + "x": ""})).message
    )


def test_a_file_that_vanishes_meanwhile_is_passed_over(make_plugin, plugins_root, monkeypatch):
    folder = make_plugin({"main.py": "", "gone.py": ""})

    def vanish(path, limit):
        if path.endswith("gone.py"):
            raise FileNotFoundError
        return read_file(path, limit)

    monkeypatch.setattr(discovery, "read_file", vanish)
    assert list(read_source(plugins_root, folder, "sample").files) == ["main.py"]


def test_a_file_that_cannot_be_read_is_named(make_plugin, plugins_root, monkeypatch):
    folder = make_plugin({"main.py": "", "sub/locked.py": ""})

    def refuse(path, limit):
        if path.endswith("locked.py"):
            raise PermissionError(13, "Permission denied")
        return read_file(path, limit)

    monkeypatch.setattr(discovery, "read_file", refuse)
    error = refusal(plugins_root, folder)
    assert error.file == "sub/locked.py"
    assert "Permission denied" in error.message


@pytest.mark.skipif(sys.platform == "darwin", reason="HFS+ and APFS refuse such names")
def test_a_file_name_that_is_not_utf_8_is_refused_in_words_that_are(make_plugin, plugins_root):
    folder = make_plugin({"main.py": ""})
    os.close(os.open(os.fsencode(folder) + b"/\xff\xfe.txt", os.O_CREAT | os.O_WRONLY))
    error = refusal(plugins_root, folder)
    assert "UTF-8" in error.message
    str(error).encode()


def test_unusual_file_names_are_kept(read_plugin):
    names = ["with space.txt", "ünï.txt", "a\\b", "quote'\".txt", "line\nbreak.txt", "🐍.txt"]
    source = read_plugin({"main.py": "", **dict.fromkeys(names, "x")})
    assert set(source.files) == {"main.py", *names}


# --- digest --------------------------------------------------------------------------------


def test_the_digest_is_that_of_paths_and_bytes_alone(make_plugin, plugins_root):
    first = read_source(plugins_root, make_plugin({"main.py": "x", "a/b": "y"}), "sample")
    second = read_source(plugins_root, make_plugin({"a/b": "y", "main.py": "x"}, "other"), "other")
    (plugins_root / "other" / "main.py").chmod(0o600)
    os.utime(plugins_root / "other" / "main.py", (1, 1))
    again = read_source(plugins_root, plugins_root / "other", "other")
    assert first.digest == second.digest == again.digest
    assert len(first.digest) == 32
    assert set(first.digest) <= set("0123456789abcdef")


def test_the_digest_is_the_same_for_ever():
    # It is kept in databases: another value would publish every plugin again.
    assert digest_of({}) == digest_of({})
    assert digest_of({"main.py": b"x = 1\n", "a/ü.txt": b"\0"}) == digest_of(
        dict(reversed({"main.py": b"x = 1\n", "a/ü.txt": b"\0"}.items()))
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": b"x"}, {"b": b"x"}),
        ({"a": b"x"}, {"a": b"y"}),
        ({"a": b"xy", "b": b""}, {"a": b"x", "b": b"y"}),
        ({"a": b"b"}, {"ab": b""}),
        ({"a": b"", "b": b""}, {"ab": b""}),
        ({"a": b"1:b1:c"}, {"a": b"", "b": b"c"}),
        ({"a": b"x", "b": b"y"}, {"a": b"y", "b": b"x"}),
        ({"a/b": b""}, {"a": b"", "b": b""}),
        ({"a": b""}, {}),
        ({"a": b"\n"}, {"a": b"\r\n"}),
        ({"é": b""}, {"e\u0301": b""}),
    ],
)
def test_the_digest_tells_different_sources_apart(one, other):
    assert digest_of(one) != digest_of(other)


FILES = st.dictionaries(st.text("ab:1/", max_size=3), st.binary(max_size=4), max_size=4)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(FILES, FILES)
def test_two_sources_have_one_digest_only_if_they_are_equal(one, other):
    assert (digest_of(one) == digest_of(other)) == (one == other)


def test_the_manifest_is_part_of_the_digest(read_plugin):
    one = read_plugin({"main.py": "", "plugin.yaml": "version: 1"}, "a").digest
    assert one != read_plugin({"main.py": "", "plugin.yaml": "version: 2"}, "b").digest


# --- requirements --------------------------------------------------------------------------


def test_requirements_that_are_met_are_accepted(read_plugin):
    lines = """\
        # a comment
        falcon>=4,<5   # and another
        PyYAML
        Falcon

        --index-url https://example.org/simple
        -r other.txt
        missing-package; python_version < "3"
        missing-package ; sys_platform == "nowhere"
        falcon[extra]>=1
        """
    assert read_plugin({"main.py": "", "requirements.txt": lines})


def test_all_requirements_that_are_not_met_are_named_with_the_line_of_the_first(
    make_plugin, plugins_root
):
    lines = "falcon\nno-such-package>=2\nfalcon<1\n???\nno-other\n"
    error = refusal(plugins_root, make_plugin({"main.py": "", "requirements.txt": lines}))
    for part in (
        "no-such-package>=2",
        "falcon<1",
        importlib.metadata.version("falcon"),
        "???",
        "no-other",
        "pip install -r",
    ):
        assert part in error.message, part
    assert error.file == "requirements.txt"
    assert error.line == 2


def test_a_requirement_with_hashes_as_pip_compile_writes_it_is_read(read_plugin):
    lines = (
        "falcon>=4 \\\n    --hash=sha256:abc \\\n    --hash=sha256:def\npyyaml>=5 --hash=sha256:0\n"
    )
    assert read_plugin({"main.py": "", "requirements.txt": lines})


def test_requirements_with_a_byte_order_mark_are_read(read_plugin):
    assert read_plugin({"main.py": "", "requirements.txt": b"\xef\xbb\xbffalcon\n"})


@pytest.mark.parametrize("line", ['falcon; os_name ~= "x"', 'falcon; python_full_version ~= "a"'])
def test_a_marker_that_cannot_be_evaluated_is_refused_by_name(make_plugin, plugins_root, line):
    folder = make_plugin({"main.py": "", "requirements.txt": line})
    assert "falcon" in refusal(plugins_root, folder).message


def test_requirements_that_are_not_text_are_refused(make_plugin, plugins_root):
    folder = make_plugin({"main.py": "", "requirements.txt": b"\xff\xfe\x00"})
    assert refusal(plugins_root, folder).file == "requirements.txt"


@pytest.mark.parametrize("mode", [0o000, 0o600])
def test_a_folder_without_rights_is_a_sentence_and_no_fault_of_ours(open_path, mode):
    folder = open_path / "plugins" / "alpha"
    folder.mkdir(parents=True)
    (folder / "main.py").write_text("new_plugin = object\n")
    folder.chmod(mode)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if os.geteuid() == 0:
                os.seteuid(65534)  # root may read everything
            folder_stamp(folder)
            folder_stamp(folder / "main.py")
            read_source(open_path / "plugins", folder, "alpha")
        except DiscoveryError as error:
            os.write(writer, error.message.encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with os.fdopen(reader) as said:
        message = said.read()
    folder.chmod(0o700)
    assert "Permission denied" in message or "holds no file" in message, message


def test_what_to_do_about_a_trial_that_cannot_be_made_depends_on_the_error():
    assert "ulimit -n" in _remedy(OSError(errno.EMFILE, "Too many open files"))
    assert sys.executable in _remedy(OSError(errno.EACCES, "Permission denied"))
    assert "TMPDIR" in _remedy(OSError(errno.ENOSPC, "No space left on device"))
