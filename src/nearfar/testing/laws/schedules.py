"""What a recipe may have move with the steps."""

from __future__ import annotations

from nearfar.nn.schedules import unmovable
from nearfar.signature import Parameter
from nearfar.testing.exercise import exercise, same
from nearfar.testing.law import LawBroken, NotApplicable, law
from nearfar.testing.subject import Subject
from nearfar.testing.variants import variants


@law("loss", "miner", "reducer", "distance", cases=lambda subject: subject.spec.schedulable)
def schedulable(subject: Subject, case: str) -> None:
    """A parameter that its spec calls schedulable is an attribute of the part, and a part of which it is changed
    goes on as one that was made with it: equal to the bit."""
    if case not in subject.signature:
        raise LawBroken(f"schedulable has {case!r}, and the constructor takes no such parameter")
    parameter = subject.signature[case]
    values = _values(parameter, subject.example.get(case, parameter.default))
    judged = 0
    for arguments in variants(subject).values() if len(values) > 1 else ():
        try:
            changed, made = (subject.make(**arguments | {case: value}) for value in values[:2])
        except (Exception, SystemExit):  # values that do not go with the variant
            continue
        if why := unmovable(changed, made, [case]):  # which a recipe is told
            if not arguments:
                raise LawBroken(why)
            continue
        judged += 1
        setattr(changed, case, values[1])
        if not same(exercise(subject, changed, range(2)), exercise(subject, made, range(2))):
            message = f"with {case} = {values[1]!r} set on it, a part gives something else than one made with it"
            raise LawBroken(message, **arguments)
    if not judged:
        raise NotApplicable(f"no two values of {case} were found to try")


def _values(parameter: Parameter, own: object) -> list[float]:
    """Values of a parameter within its range."""
    near = float(own) if isinstance(own, int | float) and not isinstance(own, bool) else 0.5
    return [value for value in dict.fromkeys((near, 0.75 * near, near + 0.125)) if parameter.holds(value)]
