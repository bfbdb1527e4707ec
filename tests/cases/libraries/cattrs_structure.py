"""cattrs: the global converter"""
import attrs
import cattrs

EDIT = 0

@attrs.define
class Price:
    edit: int

cattrs.register_structure_hook(Price, lambda value, _: Price(EDIT))

def answer():
    return cattrs.structure({"edit": 1}, Price).edit
