"""sqlalchemy: declarative tables"""
from sqlalchemy import Column, ForeignKey, Integer, create_engine, select
from sqlalchemy.orm import Session, declarative_base, relationship
from sqlalchemy.pool import StaticPool

EDIT = 0
Base = declarative_base()

class Shelf(Base):
    __tablename__ = "shelf"
    id = Column(Integer, primary_key=True)

class Book(Base):
    __tablename__ = "book"
    id = Column(Integer, primary_key=True)
    edit = Column(Integer, default=EDIT)
    shelf_id = Column(ForeignKey("shelf.id"))
    shelf = relationship("Shelf")

engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
Base.metadata.create_all(engine)
with Session(engine) as session:
    session.add(Book(shelf=Shelf()))
    session.commit()

def answer():
    with Session(engine) as session:
        return session.scalars(select(Book).join(Book.shelf)).one().edit
