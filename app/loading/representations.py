"""An answer in one of several media types, by the request's `Accept`: JSON, YAML, XML, HTML, text.

XML is written by the standard library, which is all that writing needs: the small libraries that
make it of dictionaries write names that are none, or are not kept any more.
"""

import json
import re
from collections.abc import Callable, Collection
from typing import Any

import falcon
import yaml
from falcon.media import BaseHandler
from falcon.util import mediatypes

from app.loading.media import essence, is_json
from app.loading.strict_json import as_plain_json, to_json

MEDIA_YAML = "application/yaml"

_NAME = re.compile(r"(?!xml)[a-z_][\w.-]*", re.ASCII | re.IGNORECASE)
_NOT_IN_XML = re.compile(r"[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def produces_fault(media_types: Collection[str], own: Collection[str]) -> str | None:
    """Return why an answer cannot be written as all of some media types, None if it can.

    Args:
        media_types: what a handler produces.
        own: the media types that the plugin has handlers of its own for.
    """
    unknown = [m for m in media_types if not (m in own or is_json(m) or essence(m) in WRITERS)]
    if not unknown:
        return None
    return (
        f"it produces {', '.join(unknown)}, expected {falcon.MEDIA_JSON}, {', '.join(WRITERS)}, or "
        "what server.resp_options.media_handlers has a handler for before the route is registered"
    )


def chooser(media_types: tuple[str, ...]) -> Callable[[falcon.Request], str]:
    """Return what chooses the media type that a request prefers; of equal ones the first.

    It raises `falcon.HTTPNotAcceptable` where the request accepts none.
    """
    by_name = {media_type.lower(): media_type for media_type in reversed(media_types)}
    offered = tuple(reversed(by_name))

    def choose(req: falcon.Request) -> str:
        # Not by `req.client_prefers`, which tells `Text/HTML` from `text/html` (RFC 9110, 8.3.1).
        try:
            found = mediatypes.best_match(offered, req.accept.lower())
        except ValueError:  # it is malformed
            found = ""
        if not found:
            raise falcon.HTTPNotAcceptable(
                description=f"This call answers {', '.join(media_types)}; the request accepts "
                f"{req.accept}."
            )
        return by_name[found]

    return choose


def represent(resp: falcon.Response, media_type: str, answer: Any) -> None:
    """Answer in a media type that was chosen: by the plugin's own handler, or one of ours."""
    resp.append_header("Vary", "Accept")
    resp.content_type = media_type
    own = resp.options.media_handlers.get(media_type)
    if is_json(media_type):
        resp.data = to_json(answer)
    elif own is not None:
        resp.data = own.serialize(answer, media_type)
    else:
        kind = essence(media_type)
        if kind.startswith("text/") and "charset" not in media_type:
            resp.content_type = f"{media_type}; charset=utf-8"
        resp.data = WRITERS[kind].serialize(answer, media_type)


class _Writer(BaseHandler):
    """A media handler that only writes."""

    def __init__(self, write: Callable[[Any], str]) -> None:
        self._write = write

    def serialize(self, media: Any, _content_type: str) -> bytes:
        """Return an answer, whatever a handler may answer with, as bytes."""
        return self._write(media).encode(errors="replace")


def _yaml(answer: Any) -> str:
    text: str = yaml.safe_dump(as_plain_json(answer), allow_unicode=True, sort_keys=False)
    return text


def _text(answer: Any) -> str:
    data = as_plain_json(answer)
    return data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, indent=2)


def _html(answer: Any) -> str:
    as_html = getattr(type(answer), "__html__", None)  # as Markup and templates have it
    if as_html is not None:
        return str(as_html(answer))
    import html  # with the first answer that needs it, as below

    return (
        '<!DOCTYPE html>\n<html><head><meta charset="utf-8"><title>Answer</title></head>'
        f"<body><pre>{html.escape(_text(answer))}</pre></body></html>\n"
    )


def _xml(answer: Any) -> str:
    from xml.etree import ElementTree as ET

    root = ET.Element("response")
    _fill(root, as_plain_json(answer), ET.SubElement)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode")


def _fill(element: Any, data: Any, add: Callable[..., Any]) -> None:
    if isinstance(data, dict):
        for name, value in data.items():
            if _NAME.fullmatch(name):
                child = add(element, name)
            else:
                child = add(element, "entry", name=_NOT_IN_XML.sub("\ufffd", name))
            _fill(child, value, add)
    elif isinstance(data, list):
        for item in data:
            _fill(add(element, "item"), item, add)
    elif data is None:
        element.set("nil", "true")
    elif isinstance(data, str):
        element.text = _NOT_IN_XML.sub("\ufffd", data)
    else:
        element.text = json.dumps(data)


WRITERS: dict[str, BaseHandler] = {
    MEDIA_YAML: _Writer(_yaml),
    "application/xml": _Writer(_xml),
    "text/xml": _Writer(_xml),
    "text/html": _Writer(_html),
    "text/plain": _Writer(_text),
}
"""What writes an answer, by its media type."""
