"""pandas: an accessor"""
import pandas as pd

EDIT = 0

@pd.api.extensions.register_dataframe_accessor("shop")
class Shop:
    def __init__(self, frame):
        self.edit = EDIT

def answer():
    return pd.DataFrame().shop.edit

def held():
    return len([name for name in pd.DataFrame._accessors if name == "shop"])
