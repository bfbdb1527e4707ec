"""dogpile.cache: a region"""
from dogpile.cache import make_region

EDIT = 0
region = make_region().configure("dogpile.cache.memory")

@region.cache_on_arguments()
def tell():
    return EDIT

def answer():
    return tell()
