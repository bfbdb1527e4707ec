"""sqlmodel: a table"""
from sqlmodel import Field, Session, SQLModel, create_engine, select
from sqlalchemy.pool import StaticPool

EDIT = 0

class Hero(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    edit: int = EDIT

engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
SQLModel.metadata.create_all(engine)
with Session(engine) as session:
    session.add(Hero())
    session.commit()

def answer():
    with Session(engine) as session:
        return session.exec(select(Hero)).one().edit

def held():
    return len(SQLModel.metadata.tables)
