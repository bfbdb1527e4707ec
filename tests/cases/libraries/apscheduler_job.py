"""apscheduler: a scheduler that runs"""
from apscheduler.schedulers.background import BackgroundScheduler

EDIT = 0
scheduler = BackgroundScheduler()

@scheduler.scheduled_job("interval", hours=1, id="tell")
def tell():
    return EDIT

scheduler.start()

def answer():
    return [job.func() for job in scheduler.get_jobs()]

def cleanup():
    scheduler.shutdown()
