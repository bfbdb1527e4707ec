"""tortoise-orm: a model"""
from tortoise import fields
from tortoise.models import Model

EDIT = 0

class Price(Model):
    edit = fields.IntField(primary_key=True, default=EDIT)

def answer():
    return [Price().edit, Price._meta.fields_map["edit"].default]
