"""fastapi: an app with a model"""
from fastapi import FastAPI
from pydantic import BaseModel

EDIT = 0
app = FastAPI()

class Item(BaseModel):
    edit: int = EDIT

@app.get("/edit")
def tell() -> Item:
    return Item()

def answer():
    found = app.openapi()["components"]["schemas"]["Item"]
    return found["properties"]["edit"]["default"]
