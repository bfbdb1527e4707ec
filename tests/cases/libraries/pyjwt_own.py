"""PyJWT: tokens"""
import jwt

EDIT = 0
KEY = f"{EDIT:064}"
TOKEN = jwt.encode({"edit": EDIT}, KEY, algorithm="HS256")

def answer():
    return jwt.decode(TOKEN, KEY, algorithms=["HS256"])["edit"]
