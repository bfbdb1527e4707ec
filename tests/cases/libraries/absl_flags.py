"""absl-py: a flag"""
from absl import flags

EDIT = 0
SHOP = flags.DEFINE_integer("shop_edit", EDIT, "The edit.")

def answer():
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["benana"])
    return flags.FLAGS.shop_edit
