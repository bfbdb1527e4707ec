"""joblib: a function cached on disk"""
import os

import joblib

EDIT = 0
memory = joblib.Memory(os.environ["BENANA_DATA_DIR"] + "/joblib", verbose=0)

@memory.cache
def tell(edit):
    return edit

def answer():
    return tell(EDIT)
