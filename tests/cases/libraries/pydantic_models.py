"""pydantic: models, a generic one and an adapter"""
from typing import Generic, TypeVar

from pydantic import BaseModel, TypeAdapter

EDIT = 0
T = TypeVar("T")

class Price(BaseModel):
    edit: int = EDIT

class Page(BaseModel, Generic[T]):
    item: T

prices = TypeAdapter(list[Price])

def answer():
    schema = Page[Price].model_json_schema()
    return [
        prices.validate_python([{}])[0].edit,
        Page[Price](item={}).item.edit,
        schema["$defs"]["Price"]["properties"]["edit"]["default"],
    ]
