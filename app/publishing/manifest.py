"""`plugin.yaml`, read so that no text of it can hurt and none is read otherwise than meant."""

import json
import re
from dataclasses import replace
from typing import Any, cast

import yaml

from app.errors import DiscoveryError
from app.loading.callers import parse_host, parse_origin
from app.plugin import PluginMetadata
from app.publishing.ignore import MANIFEST_NAME, read_patterns
from app.publishing.plain_yaml import STR_TAG, compose, construct, fault
from app.records import AUTO, CLUSTER, FRESH, HOST, HOT, Manifest, PluginSource, Reload

_TEXTS = {"entry": 200, "name": 63, "description": 65536, "version": 100, "author": 255}
_LISTS = ("origins", "hosts")
_KEYS = (*_TEXTS, "enabled", *_LISTS, "config", "ignore", "reload", "exclusive")
_RELOADS = (AUTO, HOT, FRESH)
MAX_NAMES = 200
MAX_PATTERN = 200
_ENTRY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_MAP_TAG = "tag:yaml.org,2002:map"
_NULL_TAG = "tag:yaml.org,2002:null"
_BOOL_TAG = "tag:yaml.org,2002:bool"


def parse_manifest(plugin: str, raw: bytes, default_entry: str) -> Manifest:
    """Read a manifest.

    Args:
        plugin: the plugin's name, for the errors.
        raw: the bytes of `plugin.yaml`.
        default_entry: the entry where the manifest names none.

    Raises:
        DiscoveryError: it is not YAML, holds an alias, a duplicate or unknown key, or a value of
            a wrong type; all faulty keys are named at once.
    """
    node = compose(plugin, raw) if raw else None  # most plugins have none, and YAML takes its time
    if node is None or node.tag == _NULL_TAG:
        return Manifest(entry=default_entry)
    if node.tag != _MAP_TAG:
        raise fault(plugin, "it holds no mapping; expected lines like 'version: 1.0.0'", node)
    values: dict[str, Any] = {"entry": default_entry}
    faults: list[tuple[str, yaml.Node]] = []
    for key_node, value_node in cast(yaml.MappingNode, node).value:
        key = key_node.value
        if key not in _KEYS:
            faults.append((f"unknown key {key!r}, expected one of {', '.join(_KEYS)}", key_node))
            continue
        try:
            value = _value(key, value_node)
        except (ValueError, yaml.YAMLError) as error:
            faults.append((f"{key} is {error}", value_node))
        except (KeyError, IndexError, AttributeError, TypeError):
            # PyYAML's constructors trust an explicit tag: `!!bool maybe` is a KeyError.
            faults.append((f"{key} holds a tag that its value does not fit", value_node))
        else:
            if value is not None:
                values[key] = value
                if key == "version":
                    values["version_line"] = value_node.start_mark.line + 1
    if values.get("name", plugin) != plugin:
        faults.append((f"name is {values['name']!r}, expected {plugin!r}, the folder's name", node))
    if faults:
        raise fault(plugin, "; ".join(message for message, _ in faults), faults[0][1])
    if values.get("exclusive") and values.get("reload") == FRESH:
        raise fault(
            plugin,
            "reload is 'fresh', expected auto or hot with exclusive: such a plugin stops where it "
            "runs before its next version starts, whichever worker that is",
            node,
        )
    return Manifest(**values)


def complete_metadata(metadata: PluginMetadata, source: PluginSource) -> PluginMetadata:
    """Fill what a plugin's metadata leaves empty from its manifest.

    Raises:
        DiscoveryError: both name a version, and not the same.
    """
    manifest = source.manifest
    if metadata.version and manifest.version and metadata.version != manifest.version:
        raise DiscoveryError(
            source.name,
            f"{MANIFEST_NAME}: version is {manifest.version!r}, but get_metadata() returns "
            f"{metadata.version!r}; make them the same, or leave one of them empty",
            file=MANIFEST_NAME,
            line=manifest.version_line,
        )
    return replace(
        metadata,
        version=metadata.version or manifest.version or "",
        description=metadata.description or manifest.description or "",
        author=metadata.author or manifest.author or "",
    )


def reload_of(manifest: Manifest) -> Reload | None:
    """Return how a manifest says that its version goes live; None for AUTO."""
    if manifest.reload == AUTO:
        return None
    return Reload(manifest.reload, f"{MANIFEST_NAME} says reload: {manifest.reload}", forced=True)


def _value(key: str, node: yaml.Node) -> Any:
    """Return a key's value, None where it is left empty.

    Raises:
        ValueError: with what was found and expected.
    """
    if node.tag == _NULL_TAG:
        return None
    if key in _TEXTS:
        # The text as written: `version: 1.10` is "1.10" and no number.
        if not isinstance(node, yaml.ScalarNode):
            raise ValueError("a collection, expected text")
        text = cast(str, node.value)
        if not 1 <= len(text) <= _TEXTS[key] or re.search("[\0\ud800-\udfff]", text):
            raise ValueError(f"{text[:40]!r}, expected 1 to {_TEXTS[key]} characters")
        if key == "entry" and not _ENTRY.fullmatch(text):
            raise ValueError(f"{text!r}, expected module:function, as main:new_plugin")
        return text
    if key in _LISTS:
        return _names(key, node)
    if key == "ignore":
        return _patterns(node)
    value = construct(node)
    if key == "reload" and value not in _RELOADS:
        raise ValueError(
            f"{value!r}, expected auto (Benana tries it), hot (loaded into the workers that run) "
            "or fresh (new workers take their place)"
        )
    if key == "exclusive":
        return _scope(value)
    if key == "enabled" and node.tag != _BOOL_TAG:
        raise ValueError(f"{value!r}, expected true or false")
    if key == "config":
        if not isinstance(value, dict):
            raise ValueError(f"{value!r}, expected a mapping")
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"not JSON ({error}), expected JSON's types") from None
    return value


def _scope(value: Any) -> str | None:
    """Return among whose processes one alone may run the plugin; ValueError for another word."""
    if value is True or value == HOST:
        return HOST
    if value is False or value == CLUSTER:
        return CLUSTER if value else None
    raise ValueError(f"{value!r}, expected {HOST}, true (the same), {CLUSTER} or false")


_EXPECTED_NAMES = {
    "origins": "same, or a list of origins, as [https://app.example.com]",
    "hosts": "a list of host names, as [app.example.com]",
}


def _names(key: str, node: yaml.Node) -> tuple[str, ...]:
    """Return a list of origins or hosts, each as it is compared; none for `origins: same`.

    Raises:
        ValueError: with all that are none.
    """
    if key == "origins" and isinstance(node, yaml.ScalarNode) and node.value == "same":
        return ()
    if not isinstance(node, yaml.SequenceNode):
        given = repr(node.value[:40]) if isinstance(node, yaml.ScalarNode) else "a mapping"
        advice = "; without the key, pages of every origin may call" if key == "origins" else ""
        raise ValueError(f"{given}, expected {_EXPECTED_NAMES[key]}{advice}")  # noqa: TRY004
    if len(node.value) > MAX_NAMES:
        raise ValueError(f"a list of {len(node.value):,}, expected {MAX_NAMES} at most")
    read = _origin if key == "origins" else _host
    names = [
        (item.value, read(item.value)) if item.tag == STR_TAG else (construct(item), None)
        for item in node.value
    ]
    wrong = [repr(written)[:80] for written, name in names if name is None]
    if wrong:
        expected = "https://app.example.com" if key == "origins" else "app.example.com"
        raise ValueError(
            f"a list with {', '.join(wrong[:10])}, expected {key} as {expected}, in full"
        )
    return tuple(name for _, name in names if name is not None)


def _patterns(node: yaml.Node) -> tuple[str, ...]:
    """Return a list of patterns of gitignore's syntax.

    Raises:
        ValueError: with what is none.
    """
    if not isinstance(node, yaml.SequenceNode):
        given = repr(node.value[:40]) if isinstance(node, yaml.ScalarNode) else "a mapping"
        raise ValueError(f"{given}, expected a list of patterns, as [docs/, '*.log']")  # noqa: TRY004
    if len(node.value) > MAX_NAMES:
        raise ValueError(f"a list of {len(node.value):,}, expected {MAX_NAMES} at most")
    for item in node.value:
        text = item.value if isinstance(item, yaml.ScalarNode) else ""
        if not 1 <= len(text) <= MAX_PATTERN or "\n" in text:
            shown = repr(text[:40]) if text else "what is no text"
            raise ValueError(
                f"a list with {shown}, expected patterns of 1 to {MAX_PATTERN} characters"
            )
    patterns = tuple(item.value for item in node.value)
    try:
        read_patterns(patterns)
    except ValueError as error:
        raise ValueError(f"a list with {error}") from None
    return patterns


def _origin(text: str) -> str | None:
    origin = parse_origin(text.removesuffix("/")) if text.isascii() else None
    return None if origin is None or "*" in origin.host else str(origin)


def _host(text: str) -> str | None:
    called = parse_host(text) if text.isascii() else None
    return None if called is None or called[1] is not None or "*" in text else called[0]
