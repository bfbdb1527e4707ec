"""What the threads of a worker are doing, in memory that outlives it.

A process that a plugin ends with `os._exit` or a crash cannot say any more what it was doing. Its
master can: it shares this memory with the worker (an anonymous mapping, made before the fork).
"""

import mmap

CELL_BYTES = 192
_HEADER_BYTES = 64


def mark_of(text: str) -> bytes:
    """Return what is written into a thread's cell: a text, cut or filled to 192 bytes."""
    return text.encode("utf-8", "replace")[:CELL_BYTES].ljust(CELL_BYTES, b"\0")


class Activity:
    """One cell of shared memory for each thread that answers requests.

    A thread writes a mark when its request has found its route, and a zero byte at the end.
    """

    def __init__(self, threads: int = 0) -> None:
        """Make the memory; threads beyond `threads` get a cell that nobody else sees."""
        self._memory = memoryview(mmap.mmap(-1, _HEADER_BYTES + threads * CELL_BYTES))
        self._free = [
            self._memory[start : start + CELL_BYTES]
            for start in range(_HEADER_BYTES, len(self._memory), CELL_BYTES)
        ]

    def cell(self) -> memoryview:
        """Return a cell for the calling thread."""
        try:
            return self._free.pop(0)
        except IndexError:
            return memoryview(bytearray(CELL_BYTES))

    @property
    def serving(self) -> bool:
        """Whether the process has come to serve."""
        return bool(self._memory[0])

    def begin_serving(self) -> None:
        """Note that the process serves from now on."""
        self._memory[0] = 1

    def marks(self) -> list[str]:
        """Return what the threads are doing, or were at the end of their process."""
        cells = bytes(self._memory[_HEADER_BYTES:])
        found = (cells[n : n + CELL_BYTES] for n in range(0, len(cells), CELL_BYTES))
        return [cell.rstrip(b"\0").decode("utf-8", "replace") for cell in found if cell[0]]
