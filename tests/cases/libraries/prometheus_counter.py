"""prometheus_client: a counter and a gauge"""
from prometheus_client import REGISTRY, Counter, Gauge

EDIT = 0
CALLS = Counter("shop_calls_total", "Calls.", ["kind"])
SHOWN = Gauge("shop_edit", "The edit.")
SHOWN.set(EDIT)

def answer():
    CALLS.labels("get").inc()
    assert REGISTRY.get_sample_value("shop_calls_total", {"kind": "get"}) > 0
    return REGISTRY.get_sample_value("shop_edit")

def held():
    return len(REGISTRY._names_to_collectors)
