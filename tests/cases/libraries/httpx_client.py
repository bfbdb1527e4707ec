"""httpx: a client"""
import httpx

EDIT = 0
client = httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200, json=EDIT)))

def answer():
    return client.get("http://shop/edit").json()
