"""huey: a task"""
from huey import MemoryHuey

EDIT = 0
huey = MemoryHuey("shop", immediate=True)

@huey.task()
def tell():
    return EDIT

def answer():
    return tell()(blocking=True)
