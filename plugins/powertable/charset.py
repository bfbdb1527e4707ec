"""The encoding of a CSV: said by its media type or its byte order mark, else UTF-8."""

import codecs
from dataclasses import dataclass

import falcon

from .values import show

# The longer ones first: UTF-32's begins like UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32le"),
    (codecs.BOM_UTF32_BE, "utf-32be"),
    (codecs.BOM_UTF16_LE, "utf-16le"),
    (codecs.BOM_UTF16_BE, "utf-16be"),
)
MARK_BYTES = max(len(mark) for mark, _ in _MARKS)

# These say nothing of the order of bytes; a mark must.
_UNORDERED = ("utf-16", "utf-32")
# Python's own notations of text, which no file is written in.
_NO_ENCODINGS = ("idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape", "utf-7")
_HEADERS = ("present", "absent")


@dataclass(frozen=True, slots=True)
class MediaType:
    """What a request's Content-Type says of a CSV; `charset` is empty where it says nothing."""

    charset: str
    has_header: bool


@dataclass(frozen=True, slots=True)
class Charset:
    """An encoding by its name, and the bytes of the mark that stands before the text."""

    name: str
    mark: int

    def decoder(self) -> codecs.IncrementalDecoder:
        return codecs.getincrementaldecoder(self.name)("strict")


def read_media_type(req: falcon.Request) -> MediaType:
    """Read a request's Content-Type: any but a form or JSON, with `charset` and `header`.

    Raises:
        falcon.HTTPUnsupportedMediaType: it is no CSV, is compressed, or has a parameter that
            nobody knows.
    """
    media, parameters = falcon.parse_header(req.content_type or "")
    media = media.strip().lower()
    if media == "multipart/form-data" or media.endswith("json"):
        raise _unsupported(f"Found a body of {media}, expected text/csv.")
    coding = (req.get_header("Content-Encoding") or "identity").strip().lower()
    if coding != "identity":
        raise _unsupported(f"Found the Content-Encoding {show(coding)}, expected a body as it is.")
    header = parameters.get("header", "present").lower()
    if header not in _HEADERS:
        raise _unsupported(
            f"Found header={show(header)}, expected header=present or header=absent."
        )
    charset = parameters.get("charset", "").strip().lower()
    if charset and not _is_encoding(charset):
        raise _unsupported(
            f"Found charset={show(charset)}, expected an encoding such as utf-8, windows-1252 or "
            "iso-8859-1."
        )
    return MediaType(charset, header == "present")


def choose_charset(said: str, head: bytes) -> Charset:
    """Return the encoding that a file is read in.

    Args:
        said: the charset of its media type, empty if there is none.
        head: its first `MARK_BYTES` bytes.

    Raises:
        falcon.HTTPUnsupportedMediaType: the mark is of another encoding than was said, or it is
            missing where only it tells the order of bytes.
    """
    mark, marked = next((entry for entry in _MARKS if head.startswith(entry[0])), (b"", ""))
    if not said:
        return Charset(marked or "utf-8", len(mark))
    name = codecs.lookup(said).name
    if not marked:
        if name in _UNORDERED:
            raise _unsupported(
                f"Found charset={show(said)} and no byte order mark, expected {name}le or {name}be."
            )
        return Charset(said, 0)
    if name not in (codecs.lookup(marked).name, marked[:6], "utf-8-sig"):
        raise _unsupported(
            f"Found charset={show(said)} and the byte order mark of {marked}, expected the same."
        )
    return Charset(marked, len(mark))


def _is_encoding(name: str) -> bool:
    try:
        found = codecs.lookup(name)
        # Bytes into bytes, such as base64, are refused here.
        "".encode(name)
    except (LookupError, ValueError):
        return False
    return found.name.replace("_", "-") not in _NO_ENCODINGS and bool(found.incrementaldecoder)


def _unsupported(sentence: str) -> falcon.HTTPUnsupportedMediaType:
    return falcon.HTTPUnsupportedMediaType(title="Not CSV", description=sentence)
