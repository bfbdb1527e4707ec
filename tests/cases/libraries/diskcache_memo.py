"""diskcache: an object that an earlier version stored"""
import os

from diskcache import Cache

EDIT = 0
cache = Cache(os.environ["BENANA_DATA_DIR"] + "/diskcache")

class Price:
    @property
    def edit(self):
        return EDIT

cache.add("price", Price())

def answer():
    return cache["price"].edit

def held():
    return len(cache)

def cleanup():
    cache.close()
