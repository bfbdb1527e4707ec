"""blinker: a receiver"""
from blinker import signal

EDIT = 0
sold = signal("sold")

@sold.connect
def count(sender):
    return EDIT

def answer():
    return [given for _, given in signal("sold").send() if given == EDIT]

def held():
    return len(signal("sold").receivers)
