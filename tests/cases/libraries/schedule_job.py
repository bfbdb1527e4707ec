"""schedule: a job"""
import schedule

EDIT = 0

def job():
    return EDIT

schedule.every(10).seconds.do(job)

def answer():
    return [job.job_func() for job in schedule.get_jobs()]

def held():
    return len(schedule.get_jobs())
