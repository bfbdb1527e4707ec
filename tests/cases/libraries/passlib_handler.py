"""passlib: a registered handler"""
from passlib import registry
from passlib.utils.handlers import StaticHandler

EDIT = 0

class shop_hash(StaticHandler):
    name = "shop_hash"
    edit = EDIT

    def _calc_checksum(self, secret):
        return str(EDIT)

registry.register_crypt_handler(shop_hash)

def answer():
    return registry.get_crypt_handler("shop_hash").edit
