"""tornado: an option"""
from tornado.options import define, options

EDIT = 0
define("shop_edit", default=EDIT)

def answer():
    return options.shop_edit
