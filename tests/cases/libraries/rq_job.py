"""rq: a job, found by its function's name"""
from redis import Redis
from rq import Queue
from rq.job import Job

EDIT = 0
connection = Redis()
queue = Queue("shop", connection=connection)

def tell():
    return EDIT

def answer():
    job = Job.create(tell, connection=connection)
    return Job.create(job.func_name, connection=connection).func()
