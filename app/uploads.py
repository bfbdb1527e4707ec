"""What a client has sent in a form beside text: files."""

from dataclasses import dataclass, field
from typing import IO, Any


@dataclass(frozen=True, slots=True, eq=False)
class File:
    """A file that came with a form: `def upload(self, photo: File)`.

    It has been received whole, in memory if it is small and else on the disk, and is gone when
    nobody refers to it any more. `stream` reads its bytes from the first one, and can seek.

    `name` is the last part of what the client calls it, without folders, and may be empty;
    `content_type` is what the client says of it. `size` is in bytes.
    """

    name: str
    content_type: str
    size: int
    stream: IO[bytes] = field(repr=False)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> Any:
        """Have a model of pydantic's take a file as it is."""
        from pydantic_core import core_schema

        return core_schema.is_instance_schema(cls)
