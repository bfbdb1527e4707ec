"""bottle: an app of its own"""
import bottle

EDIT = 0
app = bottle.Bottle()

@app.route("/edit")
def tell():
    return str(EDIT)

def answer():
    return int(b"".join(app({"PATH_INFO": "/edit", "REQUEST_METHOD": "GET"}, lambda *_: None)))
