"""mongoengine: a document"""
import mongoengine
from mongoengine.base import get_document

EDIT = 0

class Price(mongoengine.Document):
    edit = mongoengine.IntField(default=EDIT)

def answer():
    return [Price().to_mongo()["edit"], get_document("Price")().edit]
