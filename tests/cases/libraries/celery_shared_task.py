"""celery: a named shared_task"""
from celery import Celery, _state, shared_task

EDIT = 0
app = Celery("shared", broker="memory://")

@shared_task(name="shared.tell")
def tell():
    return EDIT

def answer():
    return app.tasks["shared.tell"].apply().get()

def held():
    return len(_state._on_app_finalizers)
