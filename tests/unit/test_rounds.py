"""Which workers come and go, so that there are always as many that serve as there should be."""

from dataclasses import replace

import pytest

from app.workers.rounds import Member, Rounds


class Crew:
    """Workers without processes: what is planned is done at once, unless a test does it itself."""

    def __init__(self, count, rounds=None):
        self.rounds = rounds or Rounds()
        self.wanted = count
        self.now = 0.0
        self.started = 0
        self.members = {}
        self.fewest = count
        """How many served at least, at any time."""
        for _ in range(count):
            self.start()
        self.serve()

    def start(self):
        self.started += 1
        self.members[self.started] = Member(
            self.started, self.started, serving=False, asks=False, drains=False
        )

    def change(self, pid, **changes):
        self.members[pid] = replace(self.members[pid], **changes)

    def serve(self):
        for pid, member in self.members.items():
            if not member.serving:
                self.change(pid, serving=True)

    def ask(self, *pids):
        for pid in pids or [m.pid for m in self.active()]:
            self.change(pid, asks=True)

    def active(self):
        return [member for member in self.members.values() if not member.drains]

    def booting(self):
        return [member.pid for member in self.active() if not member.serving]

    def step(self, **more):
        """Do what is planned; return the plan."""
        self.now += 0.1
        plan = self.rounds.plan(list(self.members.values()), self.wanted, self.now, **more)
        for member in plan.retire:
            self.change(member.pid, drains=True)
        for _ in range(plan.start):
            self.start()
        assert len(self.booting()) <= max(1, plan.start), "one boots at a time"
        serving = sum(member.serving for member in self.active())
        self.fewest = min(self.fewest, serving)
        return plan

    def settle(self):
        """Go on until nothing is planned; each that boots comes to serve."""
        for _ in range(100):
            plan = self.step()
            if not plan.start and not plan.retire and not self.booting():
                return
            self.serve()
        raise AssertionError("it does not end")


@pytest.mark.parametrize("count", [1, 2, 4])
def test_all_that_ask_are_replaced_and_never_fewer_serve(count):
    crew = Crew(count)
    crew.ask()
    crew.settle()
    assert {m.pid for m in crew.active()} == set(range(count + 1, 2 * count + 1))
    assert crew.fewest == count


def test_nobody_stops_accepting_before_a_fresh_one_serves():
    crew = Crew(2)
    crew.ask()
    assert crew.step().relief
    for _ in range(3):
        plan = crew.step()
        assert (plan.start, plan.retire) == (0, ())
    crew.serve()
    assert [m.pid for m in crew.step().retire] == [1]


def test_one_that_is_in_the_way_stops_accepting_at_once_where_others_serve():
    crew = Crew(2)
    crew.change(2, asks=True, in_the_way=True)
    assert [m.pid for m in crew.step().retire] == [2]
    crew.settle()
    assert {m.pid for m in crew.active()} == {1, 3}
    crew = Crew(1)
    crew.change(1, asks=True, in_the_way=True)
    crew.settle()
    assert crew.fewest == 1, "where nobody else serves it waits for the fresh one"
    assert {m.pid for m in crew.active()} == {2}


def test_one_that_cannot_boot_leaves_the_old_ones_and_is_tried_again():
    crew = Crew(2)
    crew.ask()
    for _ in range(5):
        assert crew.step().start == 1
        (booting,) = crew.booting()
        del crew.members[booting]
        assert crew.step(may_start=False).start == 0
    assert [m.pid for m in crew.active()] == [1, 2]


def test_several_edits_at_once_are_one_round_and_its_workers_are_asked_once():
    crew = Crew(4)
    crew.ask(3)  # the first that hears of it
    crew.step()
    crew.ask(1, 2, 4)
    crew.settle()
    assert crew.started == 8


def test_a_further_round_waits_for_the_drains_of_the_one_before_and_says_so(caplog):
    crew = Crew(2)
    crew.ask()
    crew.settle()
    crew.ask()
    for _ in range(3):
        assert crew.step().start == 0
    assert caplog.text.count("waits for the 2 that drain still") == 1
    del crew.members[1]
    assert crew.step().start == 0, "one drains still"
    del crew.members[2]
    crew.settle()
    assert {m.pid for m in crew.active()} == {5, 6}


def test_an_edit_in_the_middle_of_a_round_does_not_leave_it_half_done():
    crew = Crew(3)
    crew.ask()
    crew.step()
    crew.serve()
    crew.step()
    crew.ask()  # also the one that is fresh: another edit has come
    crew.settle()
    left = {m.pid for m in crew.active()}
    assert left == {4, 5, 6}, "the fresh one belongs to the next round, which waits for the drains"
    assert crew.rounds.waits_for == 3


def test_who_asks_is_replaced_and_not_the_oldest():
    crew = Crew(3)
    crew.ask(2)
    crew.settle()
    assert {m.pid for m in crew.active()} == {1, 3, 4}


def test_more_may_drain_where_that_is_set():
    crew = Crew(2, Rounds(max_draining=4))
    crew.ask()
    crew.settle()
    crew.ask()
    crew.settle()
    assert sum(member.drains for member in crew.members.values()) == 4
    crew.ask()
    assert crew.step().start == 0


@pytest.mark.parametrize("wanted", [3, 5])
def test_an_operator_may_change_the_number_in_a_round(wanted):
    crew = Crew(4)
    crew.ask()
    crew.step()
    crew.wanted = wanted
    crew.settle()
    assert len(crew.active()) == wanted
    assert not any(member.asks for member in crew.active())


def test_the_death_of_one_that_asks_changes_nothing():
    crew = Crew(2)
    crew.ask()
    crew.step()
    del crew.members[1]
    crew.settle()
    assert len(crew.active()) == 2
    assert not any(member.asks for member in crew.active())


def test_without_a_round_it_is_as_with_gunicorn():
    crew = Crew(2)
    crew.wanted = 3
    assert crew.step().start == 1
    crew.wanted = 1
    assert [m.pid for m in crew.step().retire] == [1, 2], "the oldest, whoever serves"
