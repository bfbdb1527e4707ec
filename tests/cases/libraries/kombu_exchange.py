"""kombu: a serializer, an exchange and a queue"""
from kombu import Exchange, Queue
from kombu.serialization import dumps, register

EDIT = 0
register("shop", lambda value: str(EDIT), int, content_type="application/x-shop", content_encoding="utf-8")
queue = Queue(f"edit-{EDIT}", Exchange("shop"))

def answer():
    return [int(dumps(None, "shop")[2]), int(queue.name[5:])]

def held():
    from kombu.serialization import registry
    return len(registry._encoders)
