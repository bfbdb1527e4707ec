"""dramatiq: an actor"""
import dramatiq
from dramatiq.brokers.stub import StubBroker

EDIT = 0
dramatiq.set_broker(dramatiq.broker.global_broker or StubBroker())

@dramatiq.actor
def work():
    return EDIT

def answer():
    return dramatiq.get_broker().get_actor("work").fn()

def held():
    return len(dramatiq.get_broker().get_declared_actors())
