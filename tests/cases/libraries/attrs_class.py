"""attrs: a class"""
import attrs

EDIT = 0

@attrs.define
class Price:
    edit: int = attrs.field(default=EDIT, validator=attrs.validators.instance_of(int))

def answer():
    return [attrs.asdict(Price())["edit"], attrs.fields(Price).edit.default]
