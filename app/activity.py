"""What the threads of a worker are doing, in memory that outlives it.

A process that a plugin ends with `os._exit` or a crash cannot say any more what it was doing. Its
master can: it shares this memory with the worker (an anonymous mapping, made before the fork).
"""

import itertools
import mmap
import struct
import threading
from collections import deque
from collections.abc import Callable

NAMES = 16_384
"""How many names the memory has room for; the oldest makes room for the next."""

_NAME_BYTES = 192
_ENTRY = struct.Struct(f"Q{_NAME_BYTES - 8}s")
_WORD = 8
_OWN_WORDS = 4
"""The words before those of the threads: what the process and its master tell each other."""
_SERVING, _CREW, _ASKS, _DRAIN = range(_OWN_WORDS)
_ONCE_IT_SERVES, _AT_ONCE = 1, 2


_NOBODYS: deque[int] = deque()


class Name:
    """What a thread does, as others read it; it gets its number when it is first done.

    It gives it back when it is gone: else each reload would take new pages of the memory.
    """

    __slots__ = ("number", "text", "unused")

    def __init__(self, text: str) -> None:
        self.text = text
        self.number = 0
        self.unused = _NOBODYS

    def __del__(self) -> None:
        if self.number:
            self.unused.append(self.number)


class Activity:
    """One word of shared memory for each thread that answers requests, and a table of names.

    A thread writes the number of a name when its request has found its route, and 0 at the end:
    two machine words, because that is on every request's path.
    """

    def __init__(self, threads: int = 0) -> None:
        """Make the memory; threads beyond `threads` get a word that nobody else sees."""
        words = (_OWN_WORDS + threads) * _WORD
        # Shared, and what is not touched of it costs nothing.
        memory = (
            mmap.mmap(-1, words + NAMES * _NAME_BYTES)
            if threads
            else bytearray(words + _NAME_BYTES)
        )
        self._memory = memoryview(memory)
        self._names = self._memory[words:]
        self._words = self._memory[:words].cast("Q")
        self._free = [self._words[n : n + 1] for n in range(_OWN_WORDS, len(self._words))]
        self._numbers = itertools.count(1)
        self._unused: deque[int] = deque()
        self._lock = threading.Lock()
        self.waiting: Callable[[], int] = lambda: 0
        """How many requests wait for a thread; known to the process alone that answers them."""

    def cell(self) -> memoryview:
        """Return the calling thread's word, as a sequence of one whole number."""
        with self._lock:
            return self._free.pop(0) if self._free else memoryview(bytearray(_WORD)).cast("Q")

    def give_back(self, cell: memoryview) -> None:
        """Take back the word of a thread that ends, for another one."""
        if cell.obj is self._memory.obj:
            with self._lock:
                self._free.append(cell)

    def number(self, name: Name) -> int:
        """Enter a name into the table, and return its number."""
        with self._lock:
            if not name.number:
                number = self._unused.popleft() if self._unused else next(self._numbers)
                entry = number % (len(self._names) // _NAME_BYTES) * _NAME_BYTES
                text = " ".join(name.text.split()).encode("utf-8", "replace")
                _ENTRY.pack_into(self._names, entry, number, text)
                name.number, name.unused = number, self._unused
            return name.number

    @property
    def serving(self) -> bool:
        """Whether the process has come to serve."""
        return bool(self._words[_SERVING])

    def begin_serving(self) -> None:
        """Note that the process serves from now on."""
        self._words[_SERVING] = 1

    @property
    def crew(self) -> int:
        """How many workers the master wants; 0 where no master says so."""
        return self._words[_CREW]

    @crew.setter
    def crew(self, size: int) -> None:
        self._words[_CREW] = size

    @property
    def asks(self) -> bool:
        """Whether the process asks its master for another one in its place."""
        return bool(self._words[_ASKS])

    @property
    def in_the_way(self) -> bool:
        """Whether it asks to end before that one serves, if others do."""
        return self._words[_ASKS] == _AT_ONCE

    def ask_to_be_replaced(self, *, at_once: bool = False) -> None:
        """Note that another process is to take the place of this one.

        Args:
            at_once: whether this one is in the way, and is to end even before that one serves.
        """
        self._words[_ASKS] = _AT_ONCE if at_once or self.in_the_way else _ONCE_IT_SERVES

    @property
    def drain_seconds(self) -> int:
        """How long the last requests may take once it is told to end; 0 for as long as usual."""
        return self._words[_DRAIN]

    @drain_seconds.setter
    def drain_seconds(self, seconds: int) -> None:
        self._words[_DRAIN] = seconds

    @property
    def busy(self) -> int:
        """How many threads are in a request."""
        return sum(map(bool, self._doing()))

    def _doing(self) -> list[int]:
        return self._words.tolist()[_OWN_WORDS:]

    def names(self) -> list[str]:
        """Return what the threads are doing, or were at the end of their process."""
        return [self._name(number) for number in self._doing() if number]

    def _name(self, number: int) -> str:
        entry = number % (len(self._names) // _NAME_BYTES) * _NAME_BYTES
        entered, text = _ENTRY.unpack_from(self._names, entry)
        if entered != number:
            return "a route whose name made room for others"
        return str(text.rstrip(b"\0").decode("utf-8", "replace"))
