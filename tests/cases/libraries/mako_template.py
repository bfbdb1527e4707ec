"""mako: a lookup with a template"""
from mako.lookup import TemplateLookup

EDIT = 0
lookup = TemplateLookup()
lookup.put_string("page", "<%def name='tell()'>" + str(EDIT) + "</%def>${tell()}")

def answer():
    return int(lookup.get_template("page").render())
