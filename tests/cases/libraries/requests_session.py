"""requests: a session with an adapter"""
import io

import requests
from requests.adapters import BaseAdapter

EDIT = 0

class Shop(BaseAdapter):
    def send(self, request, **kwargs):
        response = requests.Response()
        response.status_code, response.url, response.request = 200, request.url, request
        response.raw = io.BytesIO(b"%d" % EDIT)
        return response

    def close(self):
        pass

session = requests.Session()
session.mount("shop://", Shop())

def answer():
    return session.get("shop://edit").json()
