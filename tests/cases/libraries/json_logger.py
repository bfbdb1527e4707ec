"""python-json-logger: a handler of a named logger"""
import io
import json
import logging

from pythonjsonlogger.json import JsonFormatter

EDIT = 0
WRITTEN = io.StringIO()
log = logging.getLogger("shop.json")
log.propagate = False
handler = logging.StreamHandler(WRITTEN)
handler.setFormatter(JsonFormatter(static_fields={"edit": EDIT}))
log.addHandler(handler)

def answer():
    log.warning("sold")
    return json.loads(WRITTEN.getvalue().splitlines()[-1])["edit"]

def held():
    return len(log.handlers)
