"""Forms as a browser sends them."""

from collections.abc import Iterable

BOUNDARY = "boundary-of-a-test"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"

Part = tuple[str, str | bytes] | tuple[str, str | bytes, str]
"""A field and its text, or a field, a file's bytes and its name."""


def multipart(parts: Iterable[Part]) -> bytes:
    """Return a form of `CONTENT_TYPE`."""
    raw = b""
    for name, content, *file in parts:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"'
        if file:
            head += f'; filename="{file[0]}"\r\nContent-Type: image/png'
        body = content.encode() if isinstance(content, str) else content
        raw += head.encode() + b"\r\n\r\n" + body + b"\r\n"
    return raw + f"--{BOUNDARY}--\r\n".encode()
