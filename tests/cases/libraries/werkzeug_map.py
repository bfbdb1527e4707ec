"""werkzeug: a map of URLs with a converter"""
from werkzeug.routing import BaseConverter, Map, Rule

EDIT = 0

class Edit(BaseConverter):
    def to_python(self, value):
        return EDIT

urls = Map([Rule("/<edit:found>", endpoint="edit")], converters={"edit": Edit})

def answer():
    return urls.bind("shop").match("/1")[1]["found"]
