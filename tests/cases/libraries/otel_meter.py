"""opentelemetry-sdk: a meter provider"""
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource

EDIT = 0
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader], resource=Resource({"edit": EDIT})))
sold = metrics.get_meter(__name__).create_counter("sold")

def answer():
    sold.add(1)
    found = reader.get_metrics_data()
    return found and found.resource_metrics[0].resource.attributes["edit"]
