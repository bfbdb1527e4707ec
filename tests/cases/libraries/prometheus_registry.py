"""prometheus_client: a registry of its own"""
from prometheus_client import CollectorRegistry, Gauge, generate_latest

EDIT = 0
registry = CollectorRegistry()
SHOWN = Gauge("own_edit", "The edit.", registry=registry)
SHOWN.set(EDIT)

def answer():
    return float(generate_latest(registry).split()[-1])
