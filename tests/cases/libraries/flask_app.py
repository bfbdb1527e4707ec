"""flask: an app"""
from flask import Flask

EDIT = 0
app = Flask(__name__)

@app.get("/edit")
def tell():
    return {"edit": EDIT}

def answer():
    return app.test_client().get("/edit").json["edit"]
