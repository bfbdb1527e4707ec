"""psycopg2-binary: an adapter of a class"""
from psycopg2.extensions import AsIs, adapt, adapters, register_adapter

EDIT = 0

class Price:
    pass

register_adapter(Price, lambda price: AsIs(EDIT))

def answer():
    return int(adapt(Price()).getquoted())
