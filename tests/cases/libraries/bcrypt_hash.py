"""bcrypt: a hash"""
import bcrypt

EDIT = 0
HASH = bcrypt.hashpw(b"%d" % EDIT, bcrypt.gensalt(4))

def answer():
    return EDIT if bcrypt.checkpw(b"%d" % EDIT, HASH) else None
