"""marshmallow: nested schemas"""
from marshmallow import Schema, class_registry, fields

EDIT = 0

class Tag(Schema):
    label = fields.Constant(EDIT)

class Book(Schema):
    tags = fields.Nested("Tag", many=True)

def answer():
    found = Book().dump({"tags": [{"label": "any"}]})
    return [found["tags"][0]["label"], class_registry.get_class("Tag")().dump({})["label"]]

def held():
    return sum(len(classes) for classes in class_registry._registry.values())
