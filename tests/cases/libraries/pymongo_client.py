"""pymongo: a client and a codec"""
import bson
from bson.codec_options import CodecOptions, TypeEncoder, TypeRegistry
from pymongo import MongoClient

EDIT = 0

class Price:
    pass

class PriceCodec(TypeEncoder):
    python_type = Price

    def transform_python(self, value):
        return EDIT

options = CodecOptions(type_registry=TypeRegistry([PriceCodec()]))
client = MongoClient("mongodb://localhost", connect=False, appname=f"edit-{EDIT}")

def answer():
    return [
        bson.decode(bson.encode({"edit": Price()}, codec_options=options))["edit"],
        int(client.options.pool_options.appname.partition("-")[2]),
    ]

def cleanup():
    client.close()
