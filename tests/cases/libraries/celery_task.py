"""celery: a task of its own app"""
from celery import Celery, _state

EDIT = 0
app = Celery("own", broker="memory://", set_as_current=False)

@app.task
def sell():
    return EDIT

def answer():
    return app.tasks[sell.name].apply().get()

def held():
    return sum("sell" in str(f.__closure__[0].cell_contents) for f in _state._on_app_finalizers if f.__closure__)
