"""Stamps say whether a folder has to be looked at again, whatever was done to hide a change."""

import os

import pytest

from app.publishing.stamps import NOTHING, folder_stamp
from tests.support.links import point


def test_a_stamp_changes_with_an_edit_a_new_file_and_a_replaced_one(make_plugin):
    folder = make_plugin({"main.py": "x", "sub/a.py": "y"})
    seen = [folder_stamp(folder)]
    assert folder_stamp(folder) == seen[0]
    make_plugin({"sub/a.py": "longer"})
    seen.append(folder_stamp(folder))
    make_plugin({"sub/b.py": ""})
    seen.append(folder_stamp(folder))
    replacement = folder.parent / "replacement"
    replacement.write_text("z")
    os.utime(replacement, ns=(1, (folder / "main.py").stat().st_mtime_ns))
    replacement.replace(folder / "main.py")
    seen.append(folder_stamp(folder))
    assert len(set(seen)) == 4


def same_size_and_mtime(folder, name="main.py"):
    path = folder / name
    found = path.stat()
    path.write_text("y" * found.st_size)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert path.stat().st_mtime_ns == found.st_mtime_ns
    assert path.stat().st_ino == found.st_ino


def same_behind_a_link(folder):
    same_size_and_mtime(folder, "link.py")


def same_in_a_linked_folder(folder):
    same_size_and_mtime(folder, "linked/a.py")


def add_with_the_folders_mtime(folder):
    found = (folder / "sub").stat()
    (folder / "sub" / "new.py").write_text("")
    os.utime(folder / "sub", ns=(found.st_atime_ns, found.st_mtime_ns))


def swap_a_link(folder):
    (folder / "..next").symlink_to("..2")
    (folder / "..next").replace(folder / "..data")


def add_to_the_folder(folder):
    (folder / "new.py").write_text("")


@pytest.mark.parametrize(
    "change",
    [
        same_size_and_mtime,
        same_behind_a_link,
        same_in_a_linked_folder,
        add_with_the_folders_mtime,
        swap_a_link,
        add_to_the_folder,
    ],
)
def test_no_change_hides_from_a_stamp(make_plugin, change):
    make_plugin({"shared.py": "x = 1", "a.py": "x = 1"}, "shared")
    folder = make_plugin({"main.py": "x = 1", "sub/a.py": "", "..1/c.py": "1", "..2/c.py": "1"})
    (folder / "link.py").symlink_to("../shared/shared.py")
    (folder / "linked").symlink_to("../shared")
    (folder / "..data").symlink_to("..1")
    (folder / "c.py").symlink_to("..data/c.py")
    before = folder_stamp(folder)
    assert before.linked
    assert before.still_holds()
    assert folder_stamp(folder) == before
    change(folder)
    assert not before.still_holds()
    assert folder_stamp(folder) != before


def test_a_stamp_passes_over_junk_and_a_missing_folder_is_empty(make_plugin):
    folder = make_plugin({"sub/main.py": "x"})
    before = folder_stamp(folder)
    make_plugin({"sub/.main.py.swp": "", "sub/__pycache__/x.pyc": "", ".git/HEAD": ""})
    assert folder_stamp(folder) == before
    assert not before.linked
    assert folder_stamp(folder / "missing") == NOTHING
    assert not NOTHING.still_holds()


def test_a_broken_link_does_not_hide_later_edits_from_the_stamp(make_plugin):
    folder = make_plugin({f"m{n}.py": "x" for n in range(20)})
    (folder / "broken").symlink_to("nowhere")
    before = folder_stamp(folder)
    assert before.still_holds()
    assert len([part for part in before.files if part[0].endswith(".py")]) == 20
    make_plugin({"m7.py": "longer"})
    assert folder_stamp(folder) != before


@pytest.mark.parametrize("target", [".", "..", "/", "/proc"])
def test_a_link_to_much_costs_no_walk(make_plugin, target):
    folder = make_plugin({"main.py": "x", "sub/a.py": ""})
    for name in ("a", "b", "sub/c"):
        (folder / name).symlink_to(target)
    stamp = folder_stamp(folder)
    assert stamp.linked
    assert len(stamp.files) + len(stamp.folders) < 20


@pytest.mark.parametrize("link", ["the folder", "a folder in it", "a file", "a dangling one"])
def test_what_is_behind_a_link_out_of_the_root_is_no_part_of_the_stamp(make_plugin, tmp_path, link):
    """It is refused whatever it leads to, and nothing tells of a change out there."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "main.py").write_text("x = 1")
    folder = make_plugin({"main.py": "x = 1"})
    assert not folder_stamp(folder).leads_out
    if link == "the folder":
        folder = folder.with_name("linked")
    places = {
        "the folder": (folder, out),
        "a folder in it": (folder / "data", out),
        "a file": (folder / "data.py", out / "main.py"),
        "a dangling one": (folder / "data.py", out / "later.py"),
    }
    place, target = places[link]
    place.symlink_to(target)
    before = folder_stamp(folder)
    assert before.linked
    assert before.leads_out
    (out / "main.py").write_text("longer = 1")
    (out / "later.py").write_text("new")
    assert folder_stamp(folder) == before
    if link != "the folder":
        make_plugin({"main.py": "longer = 1"})
        assert folder_stamp(folder) != before, "what is in the folder counts as ever"
        before = folder_stamp(folder)
    place.unlink()
    assert folder_stamp(folder) != before


def test_a_link_that_comes_to_lead_into_the_root_is_seen(make_plugin, tmp_path):
    folder = make_plugin({"main.py": "x", "sub/a.py": "y"})
    (tmp_path / "out").mkdir()
    current = tmp_path / "current"
    current.symlink_to("out")
    (folder / "data").symlink_to(current)
    before = folder_stamp(folder)
    point(current, str(folder / "sub"))
    assert not before.still_holds()
    after = folder_stamp(folder)
    assert (after != before, after.leads_out) == (True, False)
