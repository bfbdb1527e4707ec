"""jinja2: an environment with templates and a filter"""
import jinja2

EDIT = 0
environment = jinja2.Environment(loader=jinja2.DictLoader({"page": "{{ 1 | edit }}"}))
environment.filters["edit"] = lambda _: EDIT

def answer():
    return int(environment.get_template("page").render())
