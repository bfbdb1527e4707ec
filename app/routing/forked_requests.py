"""A request whose handler has forked: the child's copy of it is answered by nobody, and ends."""

from typing import Any

from app.loading.forked_child import end_child
from app.routing.complete_app import CompleteApp
from app.routing.grace_periods import RunningRequests
from app.routing.streams import Stream


def end_request(running: RunningRequests) -> None:
    """Have this process end as the calling thread's request does; call it in a forked child.

    What follows a handler is replaced, so that requests need not ask whether they are a child's.
    Requests that the child makes itself, within its own, are answered as ever.

    Args:
        running: the requests of its parent.
    """
    slot = getattr(running.threads, "slot", None)
    if slot is None:
        return  # no thread that answers requests: it ends, and the process with it

    def ending(name: str) -> Any:
        answer = getattr(CompleteApp, name)

        def end(app: CompleteApp, *given: Any) -> Any:
            if running.threads.slot is slot:
                end_child(next((each for each in given if isinstance(each, BaseException)), None))
            return answer(app, *given)

        return end

    if slot.at is not None:
        for name in ("_get_body", "_handle_exception", "answer_failure"):
            setattr(CompleteApp, name, ending(name))

    close = Stream.close

    def end_stream(stream: Stream) -> None:
        if stream.is_of(slot):
            end_child()
        close(stream)

    setattr(Stream, "close", end_stream)  # noqa: B010 - mypy takes no other way for a method
