"""The folders of unpacked versions: whole, read-only, pruned where nobody uses them."""

import gc
import io
import json
import multiprocessing
import os
import stat
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.errors import ArtifactError
from app.files import write_whole
from app.package import unpacking, use_journal, version_folders
from app.package.archive import META_FILE, Archive
from app.package.importer import GenerationImporter
from app.package.store import write_archive
from app.package.unpacking import unpack_fault
from app.package.version_folders import VersionFolders
from app.publishing.compiler import compile_plugin
from app.publishing.discovery import read_source
from app.publishing.trials.parcel import memory_file, read_parcel, write_parcel
from app.records import Artifact
from tests.support.plugins import artifact_of, sha256

FILES = {
    "main.py": "from pathlib import Path\nhere = Path(__file__).parent\n",
    "texts/deep/greeting.txt": "hello",
    "empty.txt": "",
}


@pytest.fixture
def artifacts(tmp_path):
    return tmp_path / "artifacts"


@pytest.fixture
def folders(artifacts):
    made = VersionFolders(artifacts)
    yield made
    made.close()


def content_of(files, **options):
    return Archive.verified(artifact_of(files, **options))


def made(folders, content):
    """Return a version's folder, which nobody uses."""
    folder = folders.take("_plugins.sample.g0", content)
    folders.give_back("_plugins.sample.g0")
    return folder


def names_in(folder):
    return [path.name for path in folder.iterdir()]


def modes(folder):
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode)
        for path in [folder, *folder.rglob("*")]
    }


def test_it_holds_the_plugins_files_and_nobody_can_write_to_them(folders):
    content = content_of(FILES)
    folder = made(folders, content)
    assert folder == folders.root / "sample" / content.digest
    found = {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}
    assert found == FILES
    assert modes(folder) == {
        ".": 0o555,
        "texts": 0o555,
        "texts/deep": 0o555,
        "main.py": 0o444,
        "texts/deep/greeting.txt": 0o444,
        "empty.txt": 0o444,
    }


def test_it_is_made_once_and_made_anew_where_a_file_was_cut(artifacts, caplog):
    folders = VersionFolders(artifacts, thorough=True)
    content = content_of(FILES)
    folder = made(folders, content)
    number = folder.stat().st_ino
    assert made(folders, content).stat().st_ino == number
    (folder / "main.py").chmod(0o644)
    (folder / "main.py").write_text("")
    assert made(folders, content) == folder
    assert (folder / "main.py").read_text() == FILES["main.py"]
    assert "is not as it was published, making it anew" in caplog.text
    assert [path.name for path in folder.parent.iterdir()] == [content.digest]


def test_a_worker_looks_at_each_file_only_where_the_power_may_have_failed_since(
    folders, artifacts, monkeypatch
):
    content = content_of(FILES)
    folder = made(folders, content)
    (folder / "main.py").chmod(0o644)
    (folder / "main.py").write_text("")
    folders.take("_plugins.sample.g1", content)
    assert (folder / "main.py").read_text() == ""
    monkeypatch.setattr("app.package.unpacking.time.monotonic", lambda: 0.0)  # it starts just now
    folders.take("_plugins.sample.g1", content)
    assert (folder / "main.py").read_text() == FILES["main.py"]


def test_versions_share_the_files_that_are_the_same_in_both_and_no_others(folders):
    many = {f"data/{number}.txt": f"text {number}" for number in range(8)} | {"main.py": ""}
    old = made(folders, content_of(many))
    (old / "data" / "7.txt").chmod(0o555)  # another mark than it is to have
    new = made(folders, content_of(many | {"data/0.txt": "TEXT 0", "data/8.txt": "more"}))

    def is_shared(path):
        return (old / path).stat().st_ino == (new / path).stat().st_ino

    assert [n for n in range(8) if is_shared(f"data/{n}.txt")] == [1, 2, 3, 4, 5, 6]
    assert (old / "data" / "0.txt").read_text() == "text 0"
    assert (new / "data" / "0.txt").read_text() == "TEXT 0"
    assert modes(new)["data/7.txt"] == 0o444
    folders.prune("sample")
    assert not old.exists()


def make_often(artifacts, raw, barrier, wrong):
    folders = VersionFolders(artifacts)
    artifact = Artifact("sample", *raw)
    barrier.wait(20)
    folder = folders.take("_plugins.sample.g1", Archive.verified(artifact))
    if {p.name for p in folder.iterdir()} != {"main.py", "texts", "empty.txt"}:
        wrong.put(str(folder))


def test_several_processes_may_want_it_at_once(artifacts):
    context = multiprocessing.get_context("fork")
    wrong, barrier = context.SimpleQueue(), context.Barrier(8)
    artifact = artifact_of(FILES)
    raw = (artifact.digest, artifact.sha256, artifact.archive)
    processes = [
        context.Process(target=make_often, args=(artifacts, raw, barrier, wrong)) for _ in range(8)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert wrong.empty()
    assert names_in(artifacts / "unpacked" / "sample") == [artifact.digest]


def test_what_could_be_run_can_be_run(folders, read_plugin, plugins_root):
    read_plugin({"main.py": "", "bin/tool": "#!/bin/sh\necho run\n"})
    (plugins_root / "sample" / "bin" / "tool").chmod(0o755)
    with memory_file("parcel") as parcel:  # on its way through a trial
        write_parcel(read_source(plugins_root, plugins_root / "sample", "sample"), parcel)
        source = read_parcel(parcel)
    folder = made(folders, Archive.verified(compile_plugin(source)))
    assert modes(folder) == {".": 0o555, "main.py": 0o444, "bin": 0o555, "bin/tool": 0o555}
    assert subprocess.check_output([folder / "bin" / "tool"]) == b"run\n"


# --- pruning -------------------------------------------------------------------------------


def test_what_is_served_stays_until_its_generation_is_out_of_memory(folders, artifacts):
    artifact = artifact_of(FILES)
    archive = write_archive(artifact, artifacts)
    importer = GenerationImporter(Archive.verified(artifact), 1, folders)
    module = importer.import_entry()
    folders.prune("sample")
    archive.unlink()
    other = VersionFolders(artifacts)
    other.prune("sample")
    assert (module.here / "empty.txt").exists()
    importer.forget()
    here = module.here
    del module, importer
    gc.collect()
    folders.prune("sample")
    assert not here.exists()
    assert not here.parent.exists()


def test_a_folder_whose_archive_is_kept_stays_though_nobody_uses_it(folders, artifacts):
    old, new = artifact_of(FILES), artifact_of(FILES | {"empty.txt": "no more"})
    for artifact in (old, new):
        write_archive(artifact, artifacts)
        made(folders, Archive.verified(artifact))
    (artifacts / old.file_name).unlink()
    folders.prune("sample")
    assert names_in(folders.root / "sample") == [new.digest]


def test_a_host_that_publishes_nothing_keeps_the_newest_versions_and_those_in_use(artifacts):
    folders = VersionFolders(artifacts, keep=3)
    versions = [artifact_of(FILES | {"empty.txt": str(number)}) for number in range(6)]
    for number, artifact in enumerate(versions):
        write_archive(artifact, artifacts)
        folders.take(f"_plugins.sample.g{number}", Archive.verified(artifact))
        if number != 1:
            folders.give_back(f"_plugins.sample.g{number}")
    folders.prune("sample")
    kept = {versions[number] for number in (1, 3, 4, 5)}
    assert set(names_in(folders.root / "sample")) == {artifact.digest for artifact in kept}
    assert {path.name for path in artifacts.glob("*.pyz")} == {a.file_name for a in kept}
    folders.close()


def test_what_a_killed_process_left_behind_is_removed_with_the_next_pruning(folders, artifacts):
    content = content_of(FILES)
    folder = made(folders, content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(version_folders, "put_in_place", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            made(folders, content_of({"main.py": ""}))
    assert len(names_in(folder.parent)) == 2
    folders.prune("sample")
    assert not folder.parent.exists()


HOLDING = """
import os, sys
from pathlib import Path
from app.package.archive import Archive
from app.package.store import read_archive
from app.package.version_folders import VersionFolders
from app.publishing.compiler import compile_plugin
from app.publishing.discovery import read_source
from app.publishing.trials.parcel import memory_file, read_parcel, write_parcel
from app.records import Artifact
artifacts, digest, sha256, fork = sys.argv[1:]
raw = read_archive(Path(artifacts), f"sample-{digest}.pyz")
folders = VersionFolders(Path(artifacts))
folders.take("_plugins.sample.g1", Archive.verified(Artifact("sample", digest, sha256, raw)))
if fork == "fork" and os.fork():
    print("held", flush=True)
    os._exit(0)
if fork != "fork":
    print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("who", ["itself", "fork"])
def test_it_stays_while_another_process_or_its_forked_child_lives(folders, artifacts, who):
    artifact = artifact_of(FILES)
    archive = write_archive(artifact, artifacts)
    arguments = [str(artifacts), artifact.digest, artifact.sha256, who]
    with subprocess.Popen(
        [sys.executable, "-c", HOLDING, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "held\n"
        archive.unlink()
        folders.prune("sample")
        assert (folders.root / "sample" / artifact.digest / "main.py").exists()
        process.stdin.close()
        assert process.stdout.read() == ""  # the child has ended, too
    folders.prune("sample")
    assert not (folders.root / "sample").exists()
    assert names_in(folders.root / ".journals") == []


def test_several_may_remove_one_folder(folders):
    many = {f"data/{number}.txt": "" for number in range(100)} | {"main.py": ""}
    folder = made(folders, content_of(many))
    barrier = threading.Barrier(4)

    def remove():
        barrier.wait(10)
        unpacking.remove_folder(folder)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(remove) for _ in range(4)]:
            done.result(30)
    assert not folder.exists()


def test_an_unprivileged_user_can_prune(open_path):
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    artifacts = open_path / "artifacts"
    pid = os.fork()
    if pid == 0:
        try:
            artifacts.mkdir()
            artifacts.chmod(0o777)
            os.setuid(65534)
            folders = VersionFolders(artifacts)
            folder = made(folders, content_of(FILES))
            folders.prune("sample")
            os._exit(1 if folder.exists() else 0)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_many_generations_leave_a_short_journal(folders, monkeypatch):
    monkeypatch.setattr(use_journal, "SPARE_LINES", 10)
    content = content_of(FILES)
    kept = GenerationImporter(content, 0, folders)
    for generation in range(1, 40):
        GenerationImporter(content, generation, folders).forget()
        gc.collect(1)  # it is young; all that the tests have loaded takes its time
    (journal,) = (folders.root / ".journals").iterdir()
    assert len(journal.read_text().splitlines()) < 20
    assert kept.name in use_journal.read_journal(journal)
    assert os.environ[use_journal.VARIABLE] == str(journal)
    kept.forget()


# --- what cannot be unpacked ---------------------------------------------------------------


def packed(names, size=1):
    """Return an archive with files of any name, as nobody publishes it."""
    buffer = io.BytesIO()
    meta = {"entry": "main:new_plugin", "config": {}, "magic": "00"}
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(META_FILE, json.dumps(meta))
        for name in names:
            file.writestr(zipfile.ZipInfo(name), b"x" * size)
    raw = buffer.getvalue()
    return Artifact("sample", "0" * 32, sha256(raw), raw)


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/../../out", "a//b", "./a", ".."])
def test_a_name_that_escapes_is_refused(name):
    with pytest.raises(ArtifactError, match="expected one within a folder"):
        Archive.verified(packed([name]))


@pytest.mark.parametrize("names", [("a.txt", "A.txt"), ("dir/x", "Dir/y"), ("a", "A/b")])
def test_names_that_differ_only_in_case_stay_in_memory_and_that_is_said(folders, caplog, names):
    importer = GenerationImporter(Archive.verified(packed(names)), 1, folders)
    assert importer.folder is None
    assert "sample: it runs without a folder of its files" in caplog.text
    assert "differ only in case" in caplog.text
    importer.forget()


def test_an_archive_that_unpacks_to_too_much_stays_in_memory_and_that_is_said(monkeypatch):
    monkeypatch.setattr(unpacking, "MAX_UNPACKED_BYTES", 99)
    assert unpack_fault(Archive.verified(packed(["a"], 99))) is None
    assert "100 bytes, expected 99" in str(unpack_fault(Archive.verified(packed(["a"], 100))))


def test_where_it_cannot_be_written_who_asks_is_told_and_goes_on_from_memory(artifacts):
    artifacts.mkdir()
    (artifacts / "unpacked").write_text("in the way")
    told = []
    importer = GenerationImporter(content_of(FILES), 1, VersionFolders(artifacts, told.append))
    assert importer.import_entry().__file__.endswith(".pyz/main.py")
    assert [type(error) for error in told] == [NotADirectoryError]
    importer.forget()
    with pytest.raises(ArtifactError, match="free space, or make the folder writable"):
        made(VersionFolders(artifacts), content_of(FILES))
    with pytest.raises(ArtifactError, match="free space, or make the folder writable"):
        GenerationImporter(content_of(FILES), 1, VersionFolders(artifacts))
    (artifacts / "unpacked").unlink()
    importer = GenerationImporter(content_of(FILES), 1, VersionFolders(artifacts, told.append))
    assert told[1:] == [None]
    assert importer.folder is not None
    assert importer.name == "_plugins.sample.g1", "a name that was claimed in vain is free again"
    importer.forget()


# --- spawned processes ---------------------------------------------------------------------


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_spawned_process_finds_the_package_and_runs_the_verified_code(folders, artifacts, method):
    artifact = artifact_of(
        {"main.py": "def answer(n):\n    from .deep import here\n    return [n, here]\n"}
        | {"deep.py": "here = __file__"}
    )
    write_whole(artifacts / artifact.file_name, artifact.archive)
    importer = GenerationImporter(Archive.verified(artifact), 7, folders)
    main = importer.import_entry()
    on_disk = importer.folder / "deep.py"
    on_disk.chmod(0o644)
    on_disk.write_text("1 / 0 #" + " " * 8)
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(main.answer, (7,)) == [7, str(on_disk)]
    importer.forget()
