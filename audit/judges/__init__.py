"""Judges: does this text give that answer to that question? Each is named on the command line as NAME or NAME:ARGS."""

from __future__ import annotations

import inspect

from audit.errors import AuditError, JudgeError
from audit.judges.context import JudgeContext
from audit.plugins import Registry
from audit.protocols import Judge
from audit.remote.keys import holds_key

#: name -> class, or function of one string, that makes the judge
BUILTIN = {
    "rules": "audit.judges.rules.judge:RulesJudge",
    "openai": "audit.judges.llm.openai:make_openai",
    "gemini": "audit.judges.llm.gemini:make_gemini",
    "local": "audit.judges.llm.local:make_local",
}

REGISTRY = Registry("judge", BUILTIN, "audit.judges", JudgeError)


def get_judge(spec: str, context: JudgeContext | None = None) -> Judge:
    """The judge that `spec` names: NAME, or NAME:ARGS where ARGS (one string) is handed to what makes the judge.

    `context` goes to makers that have a parameter of that name: prices and the budget of the run.
    """
    name, colon, args = spec.strip().partition(":")
    if holds_key(args):
        raise JudgeError(
            f"what follows '{name.strip()}:' holds a key, and a judge's name is shown and stored",
            hint="a key belongs into an environment variable or .env: OPENAI_API_KEY, GEMINI_API_KEY, ?key_env=NAME",
        )
    make = REGISTRY.get(name.strip())
    if colon and not args.strip():
        raise JudgeError(
            f"'{spec}' has a colon and nothing after it", hint=f"write {name.strip()} or {name.strip()}:ARGS"
        )
    given = (args.strip(),) if colon else ()
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError) as problem:
        raise JudgeError(
            f"'{name.strip()}' ({REGISTRY.target(name.strip())}) makes no judges: {problem}",
            hint="an entry point of the group names a class, or a function of one string",
        ) from problem
    shared = {"context": context} if "context" in signature.parameters else {}
    try:
        signature.bind(*given, **shared)
    except TypeError as problem:
        takes = "takes no arguments" if colon else "needs arguments"
        raise JudgeError(f"the judge '{name.strip()}' {takes}: {problem}", hint=f"you wrote '{spec}'") from problem
    try:
        judge: Judge = make(*given, **shared)
        wrong = _unusable(judge)
    except AuditError:
        raise
    except (Exception, SystemExit) as problem:
        raise JudgeError(
            f"the judge '{spec}' cannot be made: {type(problem).__name__}: {problem}", hint="see its own documentation"
        ) from problem
    if wrong:
        raise JudgeError(f"'{name.strip()}' ({REGISTRY.target(name.strip())}) is not a judge: {wrong}")
    return judge


def _unusable(judge: Judge) -> str:
    """What a judge lacks, in words; empty if nothing."""
    if not isinstance(judge, Judge):
        return "identity, batch_size, exclusive and judge() are required"
    identity, batch_size = judge.identity, judge.batch_size
    if not isinstance(identity, str) or not identity.strip():
        return f"its identity must be a text, not {identity!r}"
    if judge.identity != identity:
        return f"its identity must stay the same, and was {identity!r} and then {judge.identity!r}"
    if not isinstance(batch_size, int) or batch_size < 1:
        return f"its batch_size must be a number of claims, 1 or more, not {batch_size!r}"
    return ""
