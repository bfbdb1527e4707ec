"""sqlobject: a class"""
import sqlobject
from sqlobject.classregistry import findClass

EDIT = 0

class Price(sqlobject.SQLObject):
    edit = sqlobject.IntCol(default=EDIT)

def answer():
    return findClass("Price").sqlmeta.columns["edit"].default
