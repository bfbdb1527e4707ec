"""starlette: an app"""
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

EDIT = 0
app = Starlette(routes=[Route("/edit", lambda request: JSONResponse({"edit": EDIT}))])

def answer():
    return TestClient(app).get("/edit").json()["edit"]
