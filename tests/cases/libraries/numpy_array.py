"""numpy: an array and a vectorized function"""
import numpy as np

EDIT = 0
PRICES = np.full(3, EDIT)
tell = np.vectorize(lambda price: price + 0)

def answer():
    return tell(PRICES).tolist()
