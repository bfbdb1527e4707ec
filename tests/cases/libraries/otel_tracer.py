"""opentelemetry-sdk: a tracer provider"""
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

EDIT = 0
trace.set_tracer_provider(TracerProvider(resource=Resource({"edit": EDIT})))
tracer = trace.get_tracer(__name__)

def answer():
    with tracer.start_as_current_span("sell") as span:
        return span.resource.attributes["edit"]
