"""The typical use of libraries at module level, and the table of docs/libraries.md of it.

`python -m tests.support.library_uses` writes the table anew.
"""

import importlib.metadata
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from app.publishing.trials.rehearser import Rehearser
from app.publishing.trials.trial import TrialRunner
from tests.support.checkout import CHECKOUT
from tests.support.plugins import artifact_of, plugin_text

TABLE = CHECKOUT / "docs" / "libraries.md"

USES = {
    "prometheus_client: a counter": """
from prometheus_client import Counter
C=Counter('x_total','x')
""",
    "marshmallow: nested schemas": """
from marshmallow import Schema, fields
class Tag(Schema):
    label=fields.Str()
class Book(Schema):
    tags=fields.Nested('Tag', many=True)
""",
    "sqlmodel": """
from sqlmodel import SQLModel, Field
class Hero(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
""",
    "dramatiq": """
import dramatiq
from dramatiq.brokers.stub import StubBroker
dramatiq.set_broker(dramatiq.broker.global_broker or StubBroker())
@dramatiq.actor
def work(): pass
""",
    "celery: a task of its own app": """
from celery import Celery
app=Celery('x')
@app.task
def add(a,b): return a+b
""",
    "celery: a named shared_task": """
from celery import Celery, shared_task
app=Celery('x')
@shared_task(name='add')
def add(a,b): return a+b
""",
    "schedule": """
import schedule
def job(): pass
schedule.every(10).seconds.do(job)
""",
    "loguru: a handler": """
import sys
from loguru import logger
logger.add(sys.stderr)
""",
    "loguru: a level": """
from loguru import logger
logger.level('NOTE', no=33)
""",
    "blinker: a receiver": """
from blinker import signal
s=signal('s')
@s.connect
def f(sender): pass
""",
    "blinker: a receiver, weak=False": """
from blinker import signal
s=signal('s')
def f(sender): pass
s.connect(f, weak=False)
""",
    "opentelemetry-sdk: a tracer provider": """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
tracer=trace.get_tracer(__name__)
""",
    "opentelemetry-sdk: a meter provider": """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
metrics.set_meter_provider(MeterProvider())
meter=metrics.get_meter(__name__)
""",
    "flask": """
from flask import Flask
app=Flask(__name__)
@app.get('/')
def i(): return 'x'
""",
    "sqlalchemy: declarative tables": """
from sqlalchemy.orm import declarative_base, Session, relationship
from sqlalchemy import Column, Integer, ForeignKey, create_engine, select
Base=declarative_base()
class A(Base):
    __tablename__='a'
    id=Column(Integer, primary_key=True)
class B(Base):
    __tablename__='b'
    id=Column(Integer, primary_key=True)
    a_id=Column(ForeignKey('a.id'))
    a=relationship('A')
e=create_engine('sqlite://')
Base.metadata.create_all(e)
with Session(e) as s: s.execute(select(A)).all()
""",
    "sqlalchemy: a listener on Engine": """
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine
@event.listens_for(Engine, 'connect')
def f(c, r): pass
""",
    "sqlalchemy: a listener on an own engine": """
from sqlalchemy import create_engine, event
e=create_engine('sqlite://')
@event.listens_for(e, 'connect')
def f(c, r): pass
""",
    "pydantic": """
from pydantic import BaseModel, TypeAdapter
from typing import Generic, TypeVar
T=TypeVar('T')
class P(BaseModel):
    x: int
class G(BaseModel, Generic[T]):
    v: T
G[P](v=P(x=1))
TypeAdapter(list[P]).validate_python([{'x':1}])
""",
    "attrs": """
import attrs
@attrs.define
class P2:
    x: int = 1
P2()
""",
    "cattrs": """
import attrs, cattrs
@attrs.define
class P2:
    x: int = 1
cattrs.structure({'x':1}, P2)
""",
    "jinja2": """
import jinja2
t=jinja2.Template('{{ x }}')
t.render(x=1)
e=jinja2.Environment(loader=jinja2.DictLoader({'a':'b'}))
e.get_template('a').render()
""",
    "requests": """
import requests
s=requests.Session()
""",
    "bottle: the default app": """
import bottle
@bottle.route('/x')
def f(): return 1
""",
    "bottle: an own app": """
import bottle
app=bottle.Bottle()
@app.route('/x')
def f(): return 1
""",
    "fastapi": """
from fastapi import FastAPI
from pydantic import BaseModel
app=FastAPI()
class Item(BaseModel):
    x: int
@app.get('/x')
def f(i: int) -> Item: return Item(x=i)
""",
    "pyyaml: a constructor": """
import yaml
def c(loader,node): return 1
yaml.SafeLoader.add_constructor('!x', c)
""",
    "pyyaml: a YAMLObject": """
import yaml
class M(yaml.YAMLObject):
    yaml_tag='!M'
    yaml_loader=yaml.SafeLoader
""",
    "django": """
import django
from django.conf import settings
if not settings.configured: settings.configure(ROOT_URLCONF=__name__)
django.setup()
from django.urls import path
urlpatterns=[path('x', lambda r: None)]
""",
    "structlog": """
import structlog
structlog.configure()
log=structlog.get_logger()
log.info('x')
""",
    "peewee": """
import peewee
db=peewee.SqliteDatabase(':memory:')
class M(peewee.Model):
    x=peewee.IntegerField()
    class Meta: database=db
""",
    "pony": """
from pony.orm import *
db=Database()
class M(db.Entity):
    x=Required(int)
db.bind('sqlite',':memory:')
db.generate_mapping(create_tables=True)
""",
    "mongoengine": """
import mongoengine
class M(mongoengine.Document):
    x=mongoengine.StringField()
""",
    "sqlobject": """
import sqlobject
class M(sqlobject.SQLObject):
    x=sqlobject.StringCol()
""",
    "numpy": """
import numpy as np
A=np.arange(3)
""",
    "pandas": """
import pandas as pd
D=pd.DataFrame({'a':[1]})
D.sum()
""",
    "matplotlib: a colormap": """
import matplotlib
from matplotlib.colors import ListedColormap
matplotlib.colormaps.register(ListedColormap(['red'], name='mine'))
""",
}


def find(rehearser: Rehearser) -> Iterator[tuple[str, str, str]]:
    """Rehearse each use; give its name, how its edits go live, and why."""
    for use, code in USES.items():
        artifact = artifact_of({"main.py": code + plugin_text()})
        reload = rehearser.rehearse(None, artifact, 1).reload
        yield use, reload.shown, _without_places(reload.why)


def _without_places(why: str) -> str:
    return re.sub(r"in /\S+", "in its folder", why).replace("|", "\\|")[:240]


def version_of(use: str) -> str:
    """Return the version of a use's library that is installed."""
    return importlib.metadata.version(use.partition(":")[0])


def module_of(use: str) -> str:
    """Return the module that a use's code imports first."""
    found = re.match(r"(?:import sys\n)?(?:from|import) ([a-z_0-9]+)", USES[use].strip())
    assert found is not None
    return found[1]


def read_table() -> dict[str, str]:
    """Return how each use's edits go live, as the table says."""
    rows = re.findall(
        r"^\| ([^|]+?) \| [^|]* \| (hot|fresh workers) \|", TABLE.read_text(), re.MULTILINE
    )
    return dict(rows)


HEAD = """# Libraries, and how plugins that use them are edited

Each library is used at module level as it typically is, and
[rehearsed](writing-plugins.md#what-a-library-keeps): *hot* edits are loaded into the workers that
run, the others go live by *fresh workers*. `python -m tests.support.library_uses` writes the table,
and a test compares it. That ten edits under load lose no request is tested for prometheus_client
and marshmallow; for the others the rehearsal alone speaks.

| library and its use | version | edits | why |
| --- | --- | --- | --- |
"""


def write_table() -> None:
    """Write the table of docs/libraries.md."""
    with tempfile.TemporaryDirectory() as folder:
        runner = TrialRunner(None)
        found = find(runner.rehearser(Path(folder) / "plugins", Path(folder) / "bin"))
        rows = [f"| {use} | {version_of(use)} | {how} | {why} |" for use, how, why in found]
        runner.stop()
    TABLE.write_text(HEAD + "\n".join(rows) + "\n")


if __name__ == "__main__":
    write_table()
