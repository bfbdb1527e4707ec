"""pandas: a frame"""
import pandas as pd

EDIT = 0
PRICES = pd.DataFrame({"edit": [EDIT, EDIT]})

def answer():
    return int(PRICES.groupby("edit").size().index[0])
