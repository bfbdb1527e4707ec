"""bottle: the default app"""
import bottle

EDIT = 0

@bottle.route("/edit")
def tell():
    return str(EDIT)

def answer():
    return [int(route.callback()) for route in bottle.default_app().routes]

def held():
    return len(bottle.default_app().routes)
