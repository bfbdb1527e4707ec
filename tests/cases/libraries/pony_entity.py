"""pony: an entity"""
from pony.orm import Database, Required, db_session

EDIT = 0
db = Database()

class Price(db.Entity):
    edit = Required(int, default=EDIT)

db.bind("sqlite", ":memory:")
db.generate_mapping(create_tables=True)

@db_session
def tell():
    found = Price()
    found.flush()
    edit = Price[found.id].edit
    found.delete()
    return edit

def answer():
    db.create_tables()  # each thread has a database of its own
    return tell()
