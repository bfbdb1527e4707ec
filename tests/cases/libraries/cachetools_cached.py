"""cachetools: a cached function"""
from cachetools import TTLCache, cached

EDIT = 0

@cached(TTLCache(10, 600))
def tell():
    return EDIT

def answer():
    return [tell(), *tell.cache.values()]
