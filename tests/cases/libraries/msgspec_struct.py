"""msgspec: a struct"""
import msgspec

EDIT = 0

class Price(msgspec.Struct):
    edit: int = EDIT

decoder = msgspec.json.Decoder(list[Price])

def answer():
    schema = msgspec.json.schema(Price)["$defs"]["Price"]["properties"]["edit"]
    return [decoder.decode(b"[{}]")[0].edit, schema["default"]]
