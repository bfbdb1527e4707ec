"""A source becomes an artifact: bytecode of every module, packed with the source, immutable."""

import codecs
import hashlib
import importlib.util
from collections.abc import Callable
from types import CodeType

from app.errors import CompileError
from app.package.archive import (
    Archive,
    compile_module,
    make_pyc,
    pack_archive,
    rename_code,
    source_label,
)
from app.records import Artifact, PluginSource

MAX_ARCHIVE_BYTES = 128 * 1024 * 1024
"""Bytecode can be many times as large as its source, and every worker reads all of it."""

_SPLIT = "split it, or keep its data in a file that the plugin reads"


def _advice(path: str) -> str:
    """Return what to do about a file that need not be of this Python."""
    if not {"test", "tests"} & set(path.split("/")[:-1]):
        return ""
    return "; if it is no part of the plugin, leave it out by ignore: in plugin.yaml"


def _can_be_named(path: str) -> bool:
    """Tell whether an `import` statement can name a module's file.

    What cannot be, as `main-OLD.py` or `main.conflict.py`, is mostly what an editor or a tool that
    synchronizes folders has left there, maybe half of a file.
    """
    return all(part.isidentifier() for part in path.removesuffix(".py").split("/"))


def _place(path: str, line: int | None, text: str) -> str:
    return f"{path}{f':{line}' if line else ''}: {text}"


def _wide_text(raw: bytes) -> str:
    """Return which encoding with several bytes a character a file has, empty if it has none."""
    marks = {codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32"}
    marks |= {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}  # begins as UTF-32 does
    return next((name for mark, name in marks.items() if raw.startswith(mark)), "")


def _fault_of_bytes(raw: bytes) -> tuple[str, int] | None:
    """Return why a file's bytes are no Python text, and in which line; None if they may be some."""
    if wide := _wide_text(raw):
        return f"it is {wide} text, expected UTF-8: save it as UTF-8, as an editor can", 1
    if (at := raw.find(b"\0")) >= 0:
        text = "it holds a NUL byte, expected UTF-8 text: half of a file, or UTF-16 without a mark"
        return text, raw.count(b"\n", 0, at) + 1
    return None


def _former_code(former: Archive | None, path: str, raw: bytes, label: str) -> CodeType | None:
    """Return the code that an earlier version has of a module, None if the module is another."""
    code = None if former is None else former.code_of(path, raw)
    if code is not None:
        rename_code(code, label + path)
    return code


def compile_plugin(
    source: PluginSource,
    begins: Callable[[str], None] = lambda _path: None,
    passes_over: Callable[[str], None] = lambda _fault: None,
    max_bytes: int = MAX_ARCHIVE_BYTES,
    former: Archive | None = None,
) -> Artifact:
    """Compile every module of a source and pack source and bytecode.

    An edit changes one file, as a rule: what the version before has of the others is taken from
    it, a hundred times as fast.

    Args:
        source: what to compile.
        begins: is told each module's path before it is compiled: a deeply nested one may end the
            process.
        passes_over: is told of each fault in a file that no `import` statement can name. It has no
            bytecode then, and who imports it all the same, by `importlib`, meets the fault.
        max_bytes: the size of the largest archive that is accepted.
        former: an earlier version of the plugin, if there is one.

    Raises:
        CompileError: a module is no Python text, or nested too deeply; all of them are named. Or
            the archive is too large.
    """
    pycs: dict[str, bytes] = {}
    faults: list[tuple[str, str, int | None]] = []
    label = source_label(source.name, source.digest)
    for path, raw in source.files.items():
        if not path.endswith(".py"):
            continue
        if (code := _former_code(former, path, raw, label)) is not None:
            pycs[path] = make_pyc(raw, code)
            continue
        if (fault := _fault_of_bytes(raw)) is not None:
            faults.append((path, f"{fault[0]}{_advice(path)}", fault[1]))
            continue
        begins(path)
        try:
            importlib.util.decode_source(raw)  # `compile` does not look into comments
            pycs[path] = make_pyc(raw, compile_module(label, path, raw))
        except SyntaxError as error:
            faults.append((path, f"{error.msg}{_advice(path)}", error.lineno or None))
        except UnicodeDecodeError as error:
            at = raw.count(b"\n", 0, error.start) + 1
            faults.append((path, f"it is not {error.encoding.upper()} text: {error.reason}", at))
        except MemoryError:  # the parser's word for a stack that is full, too
            text = f"it is nested too deeply, or compiling it takes too much memory; {_SPLIT}"
            faults.append((path, text, None))
        except (ValueError, RecursionError, OverflowError) as error:
            faults.append((path, f"{type(error).__name__}: {error}", None))
    for path, text, line in faults:
        if not _can_be_named(path):
            passes_over(_place(path, line, text))
    faults = [fault for fault in faults if _can_be_named(fault[0])]
    if faults:
        file, message, line = faults[0]
        if len(faults) > 1:
            message = "; ".join(_place(path, at, text) for path, text, at in faults)
        raise CompileError(source.name, message, file=file, line=line)
    archive = pack_archive(source, pycs)
    if len(archive) > max_bytes:
        raise CompileError(
            source.name,
            f"source and bytecode have {len(archive):,} bytes, expected {max_bytes:,} at "
            "most; keep data elsewhere, as in the plugin's data folder",
        )
    return Artifact(source.name, source.digest, hashlib.sha256(archive).hexdigest(), archive)
