"""PyJWT: a registered algorithm"""
import jwt
from jwt.algorithms import NoneAlgorithm

EDIT = 0

class Shop(NoneAlgorithm):
    edit = EDIT

jwt.register_algorithm("shop", Shop())

def answer():
    return jwt.get_algorithm_by_name("shop").edit if hasattr(jwt, "get_algorithm_by_name") else jwt.api_jws._jws_global_obj.get_algorithm_by_name("shop").edit
