"""Judges: does this text give that answer to that question? Each is named on the command line as NAME or NAME:ARGS."""

from __future__ import annotations

import inspect

from audit.errors import AuditError, JudgeError
from audit.judges.context import JudgeContext
from audit.plugins import Registry
from audit.protocols import Judge

#: name -> class, or function of one string, that makes the judge
BUILTIN = {
    "rules": "audit.judges.rules.judge:RulesJudge",
}

REGISTRY = Registry("judge", BUILTIN, "audit.judges", JudgeError)


def get_judge(spec: str, context: JudgeContext | None = None) -> Judge:
    """The judge that `spec` names: NAME, or NAME:ARGS where ARGS (one string) is handed to what makes the judge.

    `context` goes to makers that have a parameter of that name: prices and the budget of the run.
    """
    name, colon, args = spec.strip().partition(":")
    make = REGISTRY.get(name.strip())
    if colon and not args.strip():
        raise JudgeError(
            f"'{spec}' has a colon and nothing after it", hint=f"write {name.strip()} or {name.strip()}:ARGS"
        )
    given = (args.strip(),) if colon else ()
    signature = inspect.signature(make)
    shared = {"context": context} if "context" in signature.parameters else {}
    try:
        signature.bind(*given, **shared)
    except TypeError as problem:
        takes = "takes no arguments" if colon else "needs arguments"
        raise JudgeError(f"the judge '{name.strip()}' {takes}: {problem}", hint=f"you wrote '{spec}'") from problem
    try:
        judge = make(*given, **shared)
    except AuditError:
        raise
    except Exception as problem:
        raise JudgeError(
            f"the judge '{spec}' cannot be made: {type(problem).__name__}: {problem}", hint="see its own documentation"
        ) from problem
    if not isinstance(judge, Judge):
        raise JudgeError(
            f"'{name.strip()}' ({REGISTRY.target(name.strip())}) is not a judge: "
            "identity, batch_size, exclusive and judge() are required"
        )
    return judge
