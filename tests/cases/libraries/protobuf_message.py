"""protobuf: a message in the default pool"""
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

EDIT = 0
file = descriptor_pb2.FileDescriptorProto(name="shop.proto", package="shop", syntax="proto2")
message = file.message_type.add(name="Price")
message.field.add(name="edit", number=1, type=5, label=1, default_value=str(EDIT))
descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
Price = message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName("shop.Price"))

def answer():
    return Price().edit
