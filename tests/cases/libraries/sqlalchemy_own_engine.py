"""sqlalchemy: a listener on an engine of its own"""
from sqlalchemy import create_engine, event, text
from sqlalchemy.pool import StaticPool

EDIT = 0
engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})

@event.listens_for(engine, "connect")
def name_edit(connection, record):
    connection.create_function("edit", 0, lambda: EDIT)

def answer():
    with engine.connect() as connection:
        return connection.execute(text("SELECT edit()")).scalar()
