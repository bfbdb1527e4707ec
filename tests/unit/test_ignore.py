"""What is left out of a plugin: copies, environments, fixtures, and what `ignore:` says."""

import os
import subprocess
import sys
import time

import pytest

from app.errors import CompileError, DiscoveryError
from app.publishing import discovery
from app.publishing.compiler import compile_plugin
from app.publishing.discovery import list_folders, list_left_out, read_source, rules_of
from app.publishing.ignore import DEFAULT, Rules, read_patterns
from app.publishing.manifest import parse_manifest
from app.publishing.stamps import folder_stamp

PYTHON_2 = "print 'of another Python'\n"

BESIDE = {
    "main (Ada's conflicted copy 2026-11-26).py": "* (*conflict*)*",  # Dropbox
    "main (conflicted copy 2026-11-26 101112).py": "* (*conflict*)*",  # Nextcloud
    "sub/main (SFConflict ada@example.com 2026-11-26).py": "* (*conflict*)*",  # Seafile
    "main (Case Conflict).py": "* (*conflict*)*",
    "main_conflict-20261126-101112.py": "*_conflict-*",  # ownCloud
    "main.sync-conflict-20261126-101112-ABCDEFG.py": "*.sync-conflict-*",  # Syncthing
    "plugin.sync-conflict-20261126-101112-ABCDEFG.yaml": "*.sync-conflict-*",
    "main_BACKUP_4711.py": "*_BACKUP_*, *_BASE_*, *_LOCAL_*, *_REMOTE_*",
    "sub/main_REMOTE_4711.py": "*_BACKUP_*, *_BASE_*, *_LOCAL_*, *_REMOTE_*",
    "Copy of main.py": "Copy of *.py",  # Google Drive, Explorer
    "sub/Copy of main.py": "Copy of *.py",
    "main.py.conflict": "*.conflict, *.conflict1*",  # rclone bisync
    "main.py.conflict2": "*.conflict, *.conflict1*",
    "main.conflict1.py": "*.conflict, *.conflict1*",
    "@eaDir/main.py": "@eaDir/",  # Synology
    "main (1).py": "* (1).py, * 2.py, * copy.py, * - Copy.py",
    "sub/main (12).py": "* (1).py, * 2.py, * copy.py, * - Copy.py",
    "main 2.py": "* (1).py, * 2.py, * copy.py, * - Copy.py",
    "main copy.py": "* (1).py, * 2.py, * copy.py, * - Copy.py",
    "main copy 2.py": "* (1).py, * 2.py, * copy.py, * - Copy.py",
    "main - Copy.py": "* (1).py, * 2.py, * copy.py, * - Copy.py",
    "main - Copy (2).py": "* (1).py, * 2.py, * copy.py, * - Copy.py",
    "main (copy).py": "* (*copy*).py",
    "sub/main (another copy).py": "* (*copy*).py",
    "main (3rd copy).py": "* (*copy*).py",
    "main (copy 2).py": "* (*copy*).py",
    "main (Kopie).py": "* (Kopie).py, * - Copie.py, …",
    "main - Kopie.py": "* (Kopie).py, * - Copie.py, …",
    "sub/main (copie).py": "* (Kopie).py, * - Copie.py, …",
    "main - Copia.py": "* (Kopie).py, * - Copie.py, …",
    "main.py.old": "*.py.old, *.py.save, *.py.mine, *.py.dpkg-*, …",
    "main.py.save.1": "*.py.old, *.py.save, *.py.mine, *.py.dpkg-*, …",  # nano
    "main.py.mine": "*.py.old, *.py.save, *.py.mine, *.py.dpkg-*, …",  # Subversion
    "main.py.r12": "*.py.old, *.py.save, *.py.mine, *.py.dpkg-*, …",
    "main.py.orig.1": "*.py.old, *.py.save, *.py.mine, *.py.dpkg-*, …",
    "main.py.bak1": "*.py.old, *.py.save, *.py.mine, *.py.dpkg-*, …",
    "plugin.yaml.dpkg-old": "*.py.old, *.py.save, *.py.mine, *.py.dpkg-*, …",
    "main.py.rpmnew": "*.py.old, *.py.save, *.py.mine, *.py.dpkg-*, …",
    "main.bak.py": "*.bak.py, *.old.py, *.orig.py",
    "~$main.py": "~$*",
    "main.py.orig": "*.sw[pxo], *.tmp, *.temp, *.bak, *.orig, *.rej, *.part",
    "main.py.rej": "*.sw[pxo], *.tmp, *.temp, *.bak, *.orig, *.rej, *.part",
    "venv/lib/python2.7/site.py": "venv/",
    ".venv/lib/python2.7/site.py": ".*",
    "my-env/pyvenv.cfg": "pyvenv.cfg",
    "tools/env/pyvenv.cfg": "pyvenv.cfg",
    "node_modules/node-gyp/gyp/pylib.py": "node_modules/",
    "ui/node_modules/node-gyp/gyp/pylib.py": "node_modules/",
    "tests/fixtures/old.py": "tests/*/",
    "sub/test/data/py2/old.py": "tests/*/",
    "{{name}}.py": "*{{*",
    "skeleton/{{ cookiecutter.slug }}/main.py": "*{{*",
}


@pytest.mark.parametrize("path", BESIDE)
def test_what_lies_beside_a_source_keeps_no_plugin_from_being_published(
    make_plugin, plugins_root, path
):
    folder = make_plugin({"main.py": "x = 1", "sub/__init__.py": ""})
    before, stamp = read_source(plugins_root, folder, "sample"), folder_stamp(folder)
    make_plugin({path: PYTHON_2})
    if path.endswith("pyvenv.cfg"):
        make_plugin({path.replace("pyvenv.cfg", "lib/old.py"): PYTHON_2})
    after = read_source(plugins_root, folder, "sample")
    assert after == before
    assert compile_plugin(after)
    assert folder_stamp(folder) == stamp
    ((left_out, pattern),) = list_left_out(folder, rules_of(folder))
    assert pattern == BESIDE[path]
    assert path.startswith(left_out.rstrip("/"))


@pytest.mark.parametrize(
    "path",
    [
        "conflict.py",
        "conflicted/copy.py",
        "sync_conflict.py",
        "tests/test_main.py",
        "tests/__init__.py",
        "contests/data/x.py",
        "latest/data/x.py",
        "data/tests.py",
        "venv.py",
        "environment/x.py",
        "node_modules.py",
        "report (1).csv",
        "report 2.txt",
        "main(1).py",
        "main2.py",
        "copy.py",
        "a copy/main.py",
        "LOCAL_settings.py",
        "templates/{name}.html",
        "original.py",
    ],
)
def test_what_belongs_to_a_source_stays(read_plugin, path):
    assert path in read_plugin({"main.py": "", path: ""}).files


def test_what_lies_beside_plugins_is_no_plugin(plugins_root):
    for name in ("hello", "hello (conflicted copy)", "node_modules", ".venv", "my_env", "tests"):
        (plugins_root / name).mkdir()
    (plugins_root / "my_env" / "pyvenv.cfg").touch()
    assert list_folders(plugins_root) == ["hello", "tests"]


def test_a_test_that_does_not_compile_is_refused_with_what_to_do(read_plugin):
    source = read_plugin({"main.py": "", "tests/test_old.py": PYTHON_2, "sub/test/a.py": ""})
    with pytest.raises(CompileError, match="leave it out by ignore: in plugin") as caught:
        compile_plugin(source)
    assert caught.value.file == "tests/test_old.py"


# --- ignore: --------------------------------------------------------------------------------


def test_a_manifest_leaves_out_in_gitignores_syntax(make_plugin, plugins_root):
    manifest = "ignore: [docs/, '*.log', '!keep.log', /top.txt, 'a/**/z', 'x[0-9].py', '!venv/']\n"
    folder = make_plugin(
        dict.fromkeys(
            [
                "main.py", "docs/a.py", "sub/docs/b.py", "docs.py", "a.log", "sub/keep.log",
                "top.txt", "sub/top.txt", "a/z", "a/b/c/z", "z", "x1.py", "xy.py", "venv/lib.py",
                "node_modules/a.js",
            ],
            "",
        )
        | {"plugin.yaml": manifest}
    )  # fmt: skip
    source = read_source(plugins_root, folder, "sample")
    assert sorted(source.files) == [
        "docs.py", "main.py", "plugin.yaml", "sub/keep.log", "sub/top.txt", "venv/lib.py", "xy.py",
        "z",
    ]  # fmt: skip
    assert list_left_out(folder, rules_of(folder)) == [
        ("a.log", "*.log"),
        ("a/b/c/z", "a/**/z"),
        ("a/z", "a/**/z"),
        ("docs/", "docs/"),
        ("node_modules/", "node_modules/"),
        ("sub/docs/", "docs/"),
        ("top.txt", "/top.txt"),
        ("x1.py", "x[0-9].py"),
    ]


def test_a_file_that_is_left_out_changes_neither_digest_nor_stamp(make_plugin, plugins_root):
    folder = make_plugin({"main.py": "", "plugin.yaml": "ignore: [notes/, '*.csv']\n"})
    make_plugin({"notes/a.txt": "a", "big.csv": "1"})
    before, stamp = read_source(plugins_root, folder, "sample"), folder_stamp(folder)
    make_plugin({"notes/a.txt": "another", "notes/b.py": "def f(:", "big.csv": "22", "c.csv": ""})
    assert read_source(plugins_root, folder, "sample") == before
    assert folder_stamp(folder) == stamp
    make_plugin({"plugin.yaml": "ignore: [notes/]\n"})
    assert read_source(plugins_root, folder, "sample").digest != before.digest
    assert folder_stamp(folder) != stamp


def test_the_rules_of_a_folder_follow_its_manifest(make_plugin):
    folder = make_plugin({"main.py": ""})
    assert rules_of(folder) is DEFAULT
    make_plugin({"plugin.yaml": "ignore: [a]\n"})
    assert rules_of(folder).leave_out("a")
    found = (folder / "plugin.yaml").stat()
    make_plugin({"plugin.yaml": "ignore: [b]\n"})
    os.utime(folder / "plugin.yaml", ns=(found.st_atime_ns, found.st_mtime_ns))
    assert rules_of(folder).leave_out("b")
    assert rules_of(folder, fresh=False).leave_out("b")
    make_plugin({"plugin.yaml": "ignore: broken\n"})
    assert not rules_of(folder).leave_out("b")
    (folder / "plugin.yaml").unlink()
    assert rules_of(folder) is DEFAULT


def test_the_manifest_itself_is_never_left_out(make_plugin, plugins_root):
    folder = make_plugin({"main.py": "", "plugin.yaml": "ignore: ['*.yaml']\n", "b.yaml": ""})
    assert sorted(read_source(plugins_root, folder, "sample").files) == ["main.py", "plugin.yaml"]


def test_an_entry_that_is_left_out_is_refused_with_why(make_plugin, plugins_root):
    folder = make_plugin({"main.py": "", "plugin.yaml": "ignore: ['*.py']\n"})
    with pytest.raises(DiscoveryError, match=r"needs main\.py, which the plugin's patterns leave"):
        read_source(plugins_root, folder, "sample")


def test_what_is_left_out_counts_towards_no_limit(make_plugin, plugins_root, monkeypatch):
    monkeypatch.setattr(discovery, "MAX_FILES", 3)
    folder = make_plugin({f"node_modules/a{n}.js": "" for n in range(10)} | {"main.py": ""})
    assert list(read_source(plugins_root, folder, "sample").files) == ["main.py"]


def test_a_link_in_a_folder_that_is_left_out_may_lead_out_of_the_root(make_plugin, plugins_root):
    folder = make_plugin({"main.py": "", "venv/pyvenv.cfg": ""})
    (folder / "venv" / "python").symlink_to(sys.executable)
    assert list(read_source(plugins_root, folder, "sample").files) == ["main.py"]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("docs/", "ignore is 'docs/', expected a list of patterns"),
        ("{a: b}", "ignore is a mapping, expected a list"),
        ("[[a]]", "a list with what is no text"),
        ("['']", "a list with what is no text"),
        (f"[{'x' * 201}]", "expected patterns of 1 to 200 characters"),
        ("['!']", "'!', which is no pattern of gitignore"),
        ("['[z-a]']", "'[z-a]', which is no pattern of gitignore"),
        ("['*a*b*c*']", "with 4 wildcards, expected 3 at most"),
        (f"[{', '.join(['a'] * 201)}]", "a list of 201, expected 200 at most"),
    ],
)
def test_patterns_that_are_none_are_refused_with_what_is_expected(written, said):
    with pytest.raises(DiscoveryError) as caught:
        parse_manifest("sample", f"version: 1\nignore: {written}\n".encode(), "main:new_plugin")
    assert said in caught.value.message
    assert caught.value.line == 2


@pytest.mark.parametrize("pattern", ["*a*a*a", "**/a*/**", "*?*?*?b"])
def test_no_pattern_takes_long(pattern):
    began = time.monotonic()
    read_patterns([pattern])
    Rules([pattern]).leave_out("a/" * 15 + "a" * 250)
    assert time.monotonic() - began < 1.0


@pytest.mark.soak
def test_the_library_is_imported_only_where_a_manifest_names_patterns():
    code = (
        "import sys, app.publishing.watcher, app.cli.commands; sys.exit('pathspec' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
