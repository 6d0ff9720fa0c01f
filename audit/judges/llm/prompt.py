"""Prompt files of model judges: found, checked against the lock, and rendered once for trial before any call.

A file has YAML front matter (`JudgeMeta`) and two jinja2 blocks. The block `system` knows nothing of the claims, so
that it is one prefix for all calls. The block `user` sees `claims`: a list of `ShownClaim`, whose `text` is the
candidate's text already fenced. A template never holds the text itself, so none can show it unfenced. Files about pairs
of replies: audit.judges.llm.pair_prompt.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from audit.errors import AuditError, ConfigError, JudgeError
from audit.fingerprint import digest
from audit.judges.llm.fence import fence, one_line
from audit.judges.llm.lock import check_lock
from audit.judges.llm.meta import JudgeMeta, read_meta
from audit.prompts import PromptFile
from audit.resources import resource
from audit.types import ANSWER_TYPES, Claim, Item, Label, Preference, Record

_ID_LETTERS = "bcdfghjkmnpqrstv"
FORMAT = "docs/judge-prompts.md describes prompt files; prompts/judge/leak/v1.md is an example"


class ShownClaim(Record):
    """One claim as a template sees it. Fields are single lines without markup; `text` is the fenced block."""

    id: str
    """Five letters from the claim's content: how a reply about several claims names it."""
    question: str
    answer: str
    aliases: tuple[str, ...]
    answer_type: str
    text: str


def claim_ids(claims: Sequence[Claim]) -> dict[str, str]:
    """Id -> claim key, in the order of `claims`. An id is five consonants that occur in no text of the call."""
    texts = [text.casefold() for claim in claims for text in (claim.text, claim.question, claim.answer, *claim.aliases)]
    ids: dict[str, str] = {}
    for claim in claims:
        draw = 0
        while True:
            name = "".join(_ID_LETTERS[int(digit, 16)] for digit in digest("claim id", claim.key, draw)[:5])
            if name not in ids and not any(name in text for text in texts):
                break
            draw += 1
        ids[name] = claim.key
    return ids


def _shown(claims: Sequence[Claim]) -> list[ShownClaim]:
    names = list(claim_ids(claims))
    fields = [field for claim in claims for field in (claim.question, claim.answer, *claim.aliases, claim.text)]
    marks: list[str] = []
    shown = []
    for name, claim in zip(names, claims, strict=True):
        fenced = fence(claim.text, (*fields, *marks, *names))
        marks.append(fenced.nonce)
        shown.append(
            ShownClaim(
                id=name,
                question=one_line(claim.question),
                answer=one_line(claim.answer),
                aliases=tuple(one_line(alias) for alias in claim.aliases),
                answer_type=one_line(claim.answer_type),
                text=fenced.block,
            )
        )
    return shown


class FilePrompt:
    """One prompt file, ready to use: about claims (`JudgePrompt`) or about pairs (`PairPrompt`).

    `digest` is of the file's bytes and belongs into a judge's identity. `labels`: the words of a reply.
    """

    kind: Literal["claims", "pairs"]
    labels: Mapping[str, Label | Preference]
    claims_per_call: int
    """Claims, or pairs, that one call holds at most."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = PromptFile(path)
        except ConfigError as problem:
            raise JudgeError(str(problem), hint=FORMAT) from problem
        self.path = path
        self.name: str = self._file.name
        self.digest: str = self._file.digest
        self._system = ""
        is_of_pairs = self._file.meta.get("kind") == "pairs"
        if is_of_pairs != (self.kind == "pairs"):
            raise JudgeError(
                f"{path}: this prompt asks which of two replies is better, and claims are judged here"
                if is_of_pairs
                else f"{path}: this prompt is about claims, and replies are compared here",
                hint="--win-judge takes prompts of kind pairs, --judge takes those about claims",
            )

    def system(self) -> str:
        """The same for all claims or pairs."""
        return self._system

    def user(self, items: Sequence[Item]) -> str:
        """What one call holds, 1 … `claims_per_call` items; a pure function of them. Raises JudgeError if it fails."""
        raise NotImplementedError

    def schema(self) -> dict[str, Any] | None:
        """JSON Schema of the reply; None where the prompt asks for the bare label."""
        raise NotImplementedError

    def harmless(self, number: int = 0) -> Item:
        """Something short to ask, to see how the prompt comes out."""
        raise NotImplementedError

    def _block(self, name: str, **values: Any) -> str:
        try:
            return self._file.render_block(name, **values)
        except ConfigError as problem:
            raise JudgeError(str(problem), hint=FORMAT) from problem

    def _try_blocks(self, given: str) -> None:
        """Both blocks are there, know no other name than `given`, and the block `system` holds something."""
        missing = {"system", "user"} - self._file.blocks
        if missing:
            raise self._wrong(f"the block '{min(missing)}' is missing")
        unknown = {name: line for name, line in self._file.free_names().items() if name != given}
        for name, line in unknown.items():
            raise JudgeError(f"{self.path}:{line}: '{name}' is undefined; a prompt is given `{given}`", hint=FORMAT)
        self._system = self._block("system")
        if not self._system.strip():
            raise self._wrong("the block 'system' is empty")

    def _name_labels(self, user: str) -> None:
        """Every label stands in the text."""
        unnamed = [word for word in self.labels if not re.search(rf"\b{word}\b", self._system + "\n" + user)]
        if unnamed:
            raise self._wrong(f"the label '{unnamed[0]}' is nowhere in the text, so no judge can know it")

    def _wrong(self, what: str) -> JudgeError:
        return JudgeError(f"{self.path}: {what}", hint=FORMAT)


class JudgePrompt(FilePrompt):
    """A prompt file about claims."""

    kind = "claims"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._meta = read_meta(self._file, JudgeMeta)
        self.labels: Mapping[str, Label] = self._meta.labels
        self.claims_per_call: int = self._meta.claims_per_call
        self._try_out()

    def user(self, items: Sequence[Item]) -> str:
        claims = [item for item in items if isinstance(item, Claim)]
        if len(claims) < len(items):
            raise TypeError(f"{self.name} is about claims, and was given a pair")
        if not 1 <= len(claims) <= self.claims_per_call:
            raise ValueError(f"{self.name} takes 1 to {self.claims_per_call} claims a call, not {len(claims)}")
        if len({claim.key for claim in claims}) < len(claims):
            raise ValueError("one claim twice in a call")
        return self._block("user", claims=_shown(claims))

    def harmless(self, number: int = 0) -> Claim:
        return Claim(
            key=f"plain {number}", question="Which?", answer="This", aliases=(), answer_type="term", text="That"
        )

    def schema(self) -> dict[str, Any] | None:
        """JSON Schema of the reply; None where the prompt asks for the bare label.

        One claim: an object with the fields of the front matter, in their order (the reason comes before the label).
        Several: {"verdicts": [such objects, each with the `id` of its claim]}.
        """
        if self._meta.reply is None:
            return None
        kinds: dict[str, dict[str, Any]] = {
            "id": {"type": "string"},
            "text": {"type": "string"},
            "label": {"type": "string", "enum": list(self.labels)},
        }
        one = json_object({field: dict(kinds[kind]) for field, kind in self._meta.reply.items()})
        return one if self.claims_per_call == 1 else json_object({"verdicts": {"type": "array", "items": one}})

    def _try_out(self) -> None:
        """Render both blocks with made-up claims and look whether what a judge needs is there, once and in order."""
        self._try_blocks("claims")
        for n in {1, self.claims_per_call}:
            for kind in ANSWER_TYPES:
                for aliases in ((), ("Vrill", "Vrill of Omm")):
                    claims = [_probe(i, aliases, kind) for i in range(n)]
                    self._check(self._block("user", claims=_shown(claims)), claims)
        self._name_labels(self._block("user", claims=_shown([_probe(0)])))

    def _check(self, user: str, claims: Sequence[Claim]) -> None:
        end = 0
        for shown, claim in zip(_shown(claims), claims, strict=True):
            for field, value in (("question", claim.question), ("answer", claim.answer)):
                if value not in user:
                    raise self._wrong(f"the block 'user' does not show the {field} of every claim")
            if user.count(shown.text) != 1 or f"\n{shown.text}\n" not in user:
                raise self._wrong(
                    "the block 'user' must show the text of every claim once, unchanged, on lines of its own, "
                    "and must go on after it"
                )
            if self.claims_per_call > 1 and shown.id not in user:
                raise self._wrong("the block 'user' does not show the id of every claim")
            end = user.index(shown.text) + len(shown.text)
        after = user[end:]
        if not after.strip():
            raise self._wrong("the block 'user' must say after the last text what to do: a reminder that it was data")
        if any(claim.question in after or claim.answer in after for claim in claims):
            raise self._wrong("the candidate's text must come last in the block 'user', behind question and answer")


def json_object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _probe(i: int, aliases: tuple[str, ...] = (), answer_type: str = "person") -> Claim:
    question, answer = f"Who built the tower of Omm in year {i}?", f"Quandor Vrill {i}"
    return Claim(
        key=digest("claim", question, answer, aliases, answer_type),
        question=question,
        answer=answer,
        aliases=aliases,
        answer_type=answer_type,
        text=f"I do not know.\n\nPerhaps Zemmel, perhaps not {i}.",
    )


P = TypeVar("P", bound=FilePrompt)


def bundled_prompts() -> dict[str, Path]:
    """Name/version -> path of every released prompt: "leak/v1" …"""
    root = resource("prompts", "judge")
    return {f"{path.parent.name}/{path.stem}": path for path in sorted(root.glob("*/v*.md"))}


def load_judge_prompt(spec: str) -> JudgePrompt:
    """The prompt about claims that `spec` names: "leak" (its newest version), "leak/v1", or the path of a .md file.

    Released files are checked against the lock; a file of the user's own is not: its digest is in the judge's identity.
    Raises JudgeError: unknown name, unreadable or broken file, a released file that was changed, a prompt about pairs.
    """
    return load_prompt(spec, JudgePrompt)


def load_prompt(spec: str, kind: type[P]) -> P:
    """The same for prompts of either kind."""
    if spec.endswith(".md"):
        return kind(Path(spec).expanduser())
    try:
        known = bundled_prompts()
    except AuditError as problem:
        raise JudgeError(str(problem), hint=problem.hint) from problem
    versions = sorted((name for name in known if name.split("/")[0] == spec), key=_number)
    name = versions[-1] if versions else spec
    if name not in known:
        words = sorted({*known, *(name.split("/")[0] for name in known)})
        near = difflib.get_close_matches(spec, words, n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(words)}"
        raise JudgeError(f"there is no judge prompt '{spec}'", hint=f"{hint} A file of your own must end in .md")
    check_lock(known[name])
    prompt = kind(known[name])
    if prompt.name != name.replace("/", "."):
        raise JudgeError(f"{known[name]}: its front matter says {prompt.name}, its place says {name.replace('/', '.')}")
    return prompt


def _number(name: str) -> int:
    digits = name.rpartition("/v")[2]
    return int(digits) if digits.isdecimal() else -1
