"""peewee: a model"""
import peewee

EDIT = 0
database = peewee.SqliteDatabase("file:peewee?mode=memory", uri=True)

class Price(peewee.Model):
    edit = peewee.IntegerField(default=EDIT)

    class Meta:
        database = database

def answer():
    with peewee.SqliteDatabase(":memory:").bind_ctx([Price]):
        Price.create_table()
        Price.create()
        return Price.get().edit
