"""zope.interface: an interface, an implementation and an adapter"""
from zope.interface import Interface, implementer, providedBy
from zope.interface.adapter import AdapterRegistry

EDIT = 0

class IPrice(Interface):
    pass

class IShown(Interface):
    pass

@implementer(IPrice)
class Price:
    pass

adapters = AdapterRegistry()
adapters.register([IPrice], IShown, "", lambda price: EDIT)

def answer():
    return adapters.lookup1(providedBy(Price()), IShown)(Price())
