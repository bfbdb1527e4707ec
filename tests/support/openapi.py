"""Whether a document is one."""

import json
from typing import Any

from openapi_spec_validator import OpenAPIV31SpecValidator, validate


def checked(raw: bytes | dict[str, Any]) -> Any:
    """Return a document, once it is a valid one of OpenAPI 3.1."""
    document: Any = json.loads(raw) if isinstance(raw, bytes) else raw
    validate(document, cls=OpenAPIV31SpecValidator)
    return document


def schema_at(document: Any, method: str, path: str, status: str = "200") -> Any:
    """Return the schema of a JSON answer, its reference followed."""
    response = document["paths"][path][method]["responses"][status]
    return followed(document, response["content"]["application/json"]["schema"])


def followed(document: Any, schema: Any) -> Any:
    """Return what a schema refers to, itself if to nothing."""
    while "$ref" in schema:
        name = schema["$ref"].removeprefix("#/components/schemas/")
        schema = document["components"]["schemas"][name]
    return schema
