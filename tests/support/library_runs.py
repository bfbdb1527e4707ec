"""Edits of the cases of `library_cases`, all at once, and what is found of them."""

from dataclasses import dataclass, field

from tests.support.library_server import CasesServer, wrong_in


@dataclass(slots=True)
class Finding:
    """How the edits of a case went; `faults` are what must not be.

    `how` and `why` are what the server says of the last one; `kept` is how many versions stayed in
    memory, and what the log says of it.
    """

    how: str = ""
    why: str = ""
    asked: int = 0
    failed: list[str] = field(default_factory=list)
    kept: str = ""
    faults: list[str] = field(default_factory=list)


def edit_often(cases: CasesServer, edits: int) -> dict[str, Finding]:
    """Edit all cases under load, and return how each did."""
    findings = {case.name: Finding() for case in cases.cases}
    with cases.load() as load:
        for number in range(1, edits + 1):
            cases.edit(number)
            for name, answers in cases.wait(number).items():
                if wrong := wrong_in(answers, number):
                    findings[name].faults.append(f"edit {number}: {wrong}")
    left = cases.settle()
    for name, finding in findings.items():
        reload = cases.server.plugin(name)["reload"]
        finding.how, finding.why = reload["how"], reload["why"] or ""
        finding.asked = load.asked[name]
        finding.failed = load.failed.get(name, [])
        if name in left and left[name].versions:
            finding.kept = f"{left[name].versions}: {cases.keeper_of(name)}"
        if name in left and left[name].held:
            finding.faults.append(f"its registries hold {left[name].held} more")
    return findings


def fail_hot(cases: CasesServer, edits: int) -> dict[str, str]:
    """Edit cases of which each says `reload: hot`; return what fails first of each."""
    assert not cases.refused, cases.refused
    failed: dict[str, str] = {}
    for number in range(1, edits + 1):
        cases.edit(number)
        found = {name: wrong_in(answers, number) for name, answers in cases.wait(number).items()}
        failed |= {name: wrong for name, wrong in found.items() if wrong}
        cases.cases = [case for case in cases.cases if case.name not in failed]
    for name, left in cases.settle().items():
        if left.held:
            failed[name] = f"its registries hold {left.held} more after {edits} edits"
    return failed
