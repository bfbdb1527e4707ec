"""sqlalchemy: a listener on the Engine class"""
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import Engine
from sqlalchemy.pool import StaticPool

EDIT = 0
HEARD = []

@event.listens_for(Engine, "before_cursor_execute")
def hear(connection, cursor, statement, parameters, context, executemany):
    HEARD.append(EDIT)

engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})

def answer():
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    return HEARD[-1]

def held():
    return len(list(engine.dispatch.before_cursor_execute))
