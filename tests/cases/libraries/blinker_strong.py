"""blinker: a receiver, weak=False"""
from blinker import signal

EDIT = 0
bought = signal("bought")
bought.connect(lambda sender: EDIT, weak=False)

def answer():
    return [given for _, given in signal("bought").send()]

def held():
    return len(signal("bought").receivers)
