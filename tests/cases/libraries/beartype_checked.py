"""beartype: a checked function"""
from beartype import beartype

EDIT = 0

class Price:
    edit = EDIT

@beartype
def tell(price: Price) -> int:
    return price.edit

def answer():
    return tell(Price())
