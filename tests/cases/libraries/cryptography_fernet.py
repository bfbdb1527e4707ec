"""cryptography: a key that signs and one that encrypts"""
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

EDIT = 0
box = Fernet(Fernet.generate_key())
key = Ed25519PrivateKey.generate()
SECRET = box.encrypt(b"%d" % EDIT)
SIGNED = key.sign(SECRET)

def answer():
    key.public_key().verify(SIGNED, SECRET)
    return int(box.decrypt(SECRET))
