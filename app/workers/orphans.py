"""What a killed worker has left behind: the kernel gives it to the master, which ends it."""

import signal
import time
from collections.abc import Iterable

from app import descendants


class Orphans:
    """Ends the processes that came to this one by a worker's end; for the master's one thread.

    What the master itself has started is spared, be it PostgreSQL's supervisor or something of
    the operator's own hooks: all that appears while no worker ends. So `look` is called wherever
    it may have appeared: around the hooks, and around the waits.
    """

    def __init__(self) -> None:
        """Make it; this process gets the orphans below it from now on."""
        descendants.adopter()()
        self._own: set[int] = set()
        """Children that are no workers, and that nobody has left behind."""
        self._ending: dict[int, float] = {}
        """What was left behind, and when it is to be killed, in monotonic seconds."""
        self._living: set[int] = set()
        """Those whose orphans come to us, as far as they lived when the last look began."""

    def look(self, workers: Iterable[int], own: Iterable[int] = ()) -> bool:
        """End what has been left behind since the last look.

        Args:
            workers: the master's workers, those too that have ended and are not reaped yet.
            own: other children that the master has started, as far as it knows them.

        Returns:
            Whether anything of what was left behind is still there.
        """
        workers = set(workers)
        living = {pid for pid in workers | self._ending.keys() if not descendants.has_ended(pid)}
        children = set(descendants.own_children()) - workers
        # Looked up after the children: the orphans of one that ends now may be among them. Until
        # it has ended it counts as living: more of them may come.
        left_behind = any(descendants.gives_away(pid) for pid in self._living)
        self._ending = {pid: at for pid, at in self._ending.items() if pid in children}
        new = children - self._own - self._ending.keys() - set(own)
        now = time.monotonic()
        if left_behind:
            self._ending |= dict.fromkeys(new, now + descendants.GRACE_SECONDS)
            descendants.send(signal.SIGTERM, new)
            living |= new  # what these leave behind comes to us in turn
        self._own = children - self._ending.keys()
        descendants.send(signal.SIGKILL, [pid for pid, at in self._ending.items() if at <= now])
        self._living = living
        return bool(self._ending)

    def end(self, workers: Iterable[int]) -> None:
        """End all but the master's own, and return once it has ended.

        What a killed worker has left comes to the master when that worker has ended. What has had
        SIGTERM from a look does not get it again; how deep it goes makes it take no longer.

        Args:
            workers: those that were killed, and have not been reaped.
        """
        descendants.await_ends(workers)
        descendants.end_descendants(self._own, told=self._ending)
