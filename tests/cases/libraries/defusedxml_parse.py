"""defusedxml: a document"""
from defusedxml import ElementTree

EDIT = 0
PAGE = ElementTree.fromstring(f"<page><edit>{EDIT}</edit></page>")

def answer():
    return int(PAGE.findtext("edit"))
