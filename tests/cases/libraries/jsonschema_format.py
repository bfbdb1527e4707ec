"""jsonschema: a validator and a format"""
import jsonschema

EDIT = 0

@jsonschema.FormatChecker.cls_checks("edit")
def is_edit(value):
    return value == str(EDIT)

validator = jsonschema.Draft202012Validator({"format": "edit"}, format_checker=jsonschema.FormatChecker())

def answer():
    return EDIT if validator.is_valid(str(EDIT)) and not validator.is_valid(str(EDIT - 1)) else None

def held():
    return len(jsonschema.FormatChecker.checkers)
