"""Files that are no CSV, told by how they begin."""

import falcon

_ZIP = b"PK\x03\x04"
_KINDS = {
    b"\x1f\x8b": "a gzip file, unpack it first",
    b"BZh91AY&SY": "a bzip2 file, unpack it first",
    b"\xfd7zXZ\0": "an xz file, unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstd file, unpack it first",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive, unpack it first",
    b"Rar!\x1a\x07": "a RAR archive, unpack it first",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "an old Excel workbook (xls), save it as CSV first",
    b"PAR1\x15": "a Parquet file, write it as CSV first",
    b"SQLite format 3\0": "an SQLite database, write a table of it as CSV first",
    b"%PDF-": "a PDF, which holds no table that can be read",
}
# In the first pieces of a zip are the names of its files.
_IN_ZIP = {
    b"application/vnd.oasis.opendocument": "an OpenDocument file (such as ods)",
    b"xl/": "an Excel workbook (xlsx)",
    b"[Content_Types].xml": "an Office document (such as xlsx)",
}


def refuse_other_kinds(head: bytes) -> None:
    """Refuse a body by its first piece.

    Raises:
        falcon.HTTPUnsupportedMediaType: says what it is, and what to do.
    """
    found = next((kind for mark, kind in _KINDS.items() if head.startswith(mark)), None)
    if head.startswith(_ZIP):
        inner = next((kind for name, kind in _IN_ZIP.items() if name in head), None)
        found = f"{inner}, save it as CSV first" if inner else "a zip archive, unpack it first"
    if found:
        raise falcon.HTTPUnsupportedMediaType(
            title="Not CSV", description=f"Expected a CSV, found {found}."
        )
