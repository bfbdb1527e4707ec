"""gevent: monkey patches"""
from gevent import monkey

EDIT = 0
monkey.patch_all()

def answer():
    return EDIT
