"""YAML with JSON's types alone, and without what could hurt: anchors, depth, duplicate keys."""

import re
from typing import Any

import yaml

from app.errors import DiscoveryError
from app.publishing.ignore import MANIFEST_NAME

MAX_BYTES = 64 * 1024
MAX_DEPTH = 32

STR_TAG = "tag:yaml.org,2002:str"

_NUMBERS = {
    # Without YAML 1.1's base 60, which makes 750 of 12:30.
    "tag:yaml.org,2002:int": re.compile(
        r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0o?[0-7_]*|[1-9][0-9_]*)$"
    ),
    "tag:yaml.org,2002:float": re.compile(
        r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$"
        r"|\.(nan|NaN|NAN)$"
    ),
}


class _Loader(yaml.SafeLoader):
    """Safe, and with JSON's types alone: a date stays the text that was written."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (_NUMBERS.get(tag, pattern) and tag, _NUMBERS.get(tag, pattern))
        for tag, pattern in resolvers
        if not tag.endswith((":timestamp", ":value"))
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def compose(plugin: str, raw: bytes) -> yaml.Node | None:
    """Return the root node of a plugin's file, None for an empty one.

    Raises:
        DiscoveryError: it is too large, no YAML, or holds what is not taken.
    """
    if len(raw) > MAX_BYTES:
        raise fault(plugin, f"it has {len(raw):,} bytes, expected {MAX_BYTES:,} at most")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise fault(plugin, f"it is not UTF-8 text (byte {error.start})") from None
    try:
        # The events come from a loop, the nodes from a recursion: check the former first.
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise fault(plugin, "it holds an anchor or alias; expected plain values", event)
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise fault(plugin, f"it is nested deeper than {MAX_DEPTH} levels", event)
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        problem = error.problem or error.context or "it is not YAML"
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise DiscoveryError(
            plugin, f"it is not YAML: {problem}", file=MANIFEST_NAME, line=line
        ) from None
    except (yaml.YAMLError, ValueError) as error:
        raise fault(plugin, f"it is not YAML: {error}") from None
    if node is not None:
        _refuse_duplicates(plugin, node)
    return node


def _refuse_duplicates(plugin: str, node: yaml.Node, nested: bool = False) -> None:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise fault(plugin, "a key is a collection, expected text", key)
            if nested and key.tag != STR_TAG:
                # 1 and true are one key in Python, and 1 and "1" one in JSON.
                raise fault(plugin, f"the key {key.value!r} is no text; put it in quotes", key)
            if key.value in seen:
                raise fault(plugin, f"the key {key.value!r} stands twice", key)
            seen.add(key.value)
            _refuse_duplicates(plugin, value, nested=True)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_duplicates(plugin, item, nested=True)


def construct(node: yaml.Node) -> Any:
    """Return the value of a node; for one that the tag does not fit, PyYAML raises anything."""
    loader = _Loader("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()


def fault(plugin: str, message: str, where: Any = None) -> DiscoveryError:
    """Return an error of a plugin's file, at the line of a node or an event."""
    mark = getattr(where, "start_mark", None)
    line = mark.line + 1 if mark is not None else None
    return DiscoveryError(plugin, f"{MANIFEST_NAME}: {message}", file=MANIFEST_NAME, line=line)
