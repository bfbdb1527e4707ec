"""opentelemetry-api: a tracer of its own provider"""
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

EDIT = 0
provider = TracerProvider(resource=Resource({"edit": EDIT}), shutdown_on_exit=False)
tracer = trace.get_tracer(__name__, tracer_provider=provider)

def answer():
    with tracer.start_as_current_span("sell") as span:
        return span.resource.attributes["edit"]
