"""A source becomes an artifact: bytecode of every module, packed with the source, immutable."""

import hashlib
import importlib.util
import io
import json
import marshal
import zipfile
from collections.abc import Callable

from app.errors import CompileError
from app.package.archive import META_FILE, source_label
from app.records import Artifact, PluginSource

_UNCHECKED_HASH = (0b01).to_bytes(4, "little")
"""The flags of a pyc that is never compared with a source file (PEP 552)."""

_EPOCH = (1980, 1, 1, 0, 0, 0)

MAX_ARCHIVE_BYTES = 128 * 1024 * 1024
"""Bytecode can be many times as large as its source, and every worker reads all of it."""

_SPLIT = "split it, or keep its data in a file that the plugin reads"


def _advice(path: str) -> str:
    """Return what to do about a file that need not be of this Python."""
    if not {"test", "tests"} & set(path.split("/")[:-1]):
        return ""
    return "; if it is no part of the plugin, leave it out by ignore: in plugin.yaml"


def compile_plugin(
    source: PluginSource, begins: Callable[[str], None] = lambda _path: None
) -> Artifact:
    """Compile every module of a source and pack source and bytecode.

    Args:
        source: what to compile.
        begins: is told each module's path before it is compiled: a deeply nested one may end the
            process.

    Raises:
        CompileError: a module is no Python text, or nested too deeply; all of them are named. Or
            the archive is too large.
    """
    codes: dict[str, bytes] = {}
    faults: list[tuple[str, str, int | None]] = []
    label = source_label(source.name, source.digest)
    for path, raw in source.files.items():
        if not path.endswith(".py"):
            continue
        begins(path)
        try:
            importlib.util.decode_source(raw)  # `compile` does not look into comments
            codes[path] = marshal.dumps(compile(raw, label + path, "exec", dont_inherit=True))
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
    if faults:
        file, message, line = faults[0]
        if len(faults) > 1:
            message = "; ".join(f"{f}{f':{n}' if n else ''}: {text}" for f, text, n in faults)
        raise CompileError(source.name, message, file=file, line=line)
    archive = _pack(source, codes)
    if len(archive) > MAX_ARCHIVE_BYTES:
        raise CompileError(
            source.name,
            f"source and bytecode have {len(archive):,} bytes, expected {MAX_ARCHIVE_BYTES:,} at "
            "most; keep data elsewhere, as in the plugin's data folder",
        )
    return Artifact(source.name, source.digest, hashlib.sha256(archive).hexdigest(), archive)


def _pack(source: PluginSource, codes: dict[str, bytes]) -> bytes:
    meta = {
        "name": source.name,
        "digest": source.digest,
        "entry": source.manifest.entry,
        "config": dict(source.manifest.config),
        "origins": source.manifest.origins,
        "hosts": source.manifest.hosts,
        "magic": importlib.util.MAGIC_NUMBER.hex(),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        _add(packed, META_FILE, json.dumps(meta).encode())
        for path in sorted(source.files):
            raw = source.files[path]
            _add(packed, path, raw)
            if path in codes:
                header = importlib.util.MAGIC_NUMBER + _UNCHECKED_HASH
                header += importlib.util.source_hash(raw)
                _add(packed, f"{path}c", header + codes[path])
    return buffer.getvalue()


def _add(packed: zipfile.ZipFile, path: str, raw: bytes) -> None:
    packed.writestr(zipfile.ZipInfo(path, _EPOCH), raw)
