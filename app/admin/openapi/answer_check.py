"""Whether an answer is one of those that a document says; for tests, which have jsonschema."""

import json
from collections.abc import Mapping
from typing import Any

import jsonschema
from jsonschema.exceptions import best_match

from app.admin.openapi.fragment import path_of
from app.loading.media import essence, is_json


def answer_fault(
    document: Mapping[str, Any],
    method: str,
    template: str,
    status: int,
    content_type: str,
    body: bytes,
) -> str | None:
    """Tell what of an answer its document does not say, None if it says it all.

    What the document has not, as a hidden route, is right in any case.

    Args:
        document: the plugin's OpenAPI document.
        method: the request's.
        template: the URI template of its route.
        status: the answer's.
        content_type: the answer's, empty if it has none.
        body: the answer's.
    """
    described = "GET" if method == "HEAD" else method
    item = document["paths"].get(path_of(template), {})
    operation = item.get(described.lower())
    if operation is None:
        return None
    what = f"{method} {template} answered {status}"
    responses = operation["responses"]
    response = responses.get(str(status), responses.get("default"))
    if response is None:
        return (
            f"{what}, and its document says {', '.join(responses)}: say {status} in the handler's "
            f"return annotation, or by responses={{{status}: ...}}"
        )
    response = _followed(document, response)
    if "content" not in response or not body:
        return None
    media_type = essence(content_type)
    content = response["content"]
    found = content.get(media_type, content.get("*/*"))
    if found is None:
        said = ", ".join(content)
        return f"{what} with {media_type or 'no content type'}, and its document says {said}"
    if "schema" not in found or not is_json(media_type):
        return None
    # The references begin at the root.
    schema = {"components": document["components"], "allOf": [found["schema"]]}
    error = best_match(jsonschema.Draft202012Validator(schema).iter_errors(json.loads(body)))
    if error is None:
        return None
    found = ": ".join(filter(None, (".".join(map(str, error.absolute_path)), error.message)))
    return f"{what} with what is not in its document: {found}"


def _followed(document: Mapping[str, Any], item: Any) -> Any:
    """Return what an item refers to, itself if to nothing."""
    while "$ref" in item:
        found: Any = document
        for part in item["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        item = found
    return item
