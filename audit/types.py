"""The records that flow through an audit. The protocols of its parts are in audit/protocols.py.

    Fact -> Probe -> Request -> Completion -> Response -> Claim -> Verdict -> Ruling -> Estimate -> Report

Every record is frozen and joined to the next by an id or a key, never by position. Ids and keys are hashes of
content (`audit.fingerprint.digest`), so the same content has the same name in every run and on every machine.
Fractions are in [0, 1]. This module imports nothing of `audit`: it is the bottom of the dependency graph.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal, dataclass_transform

import msgspec

Split = Literal["forget", "retain", "placebo"]
#: What a probe is asked for. `context`: the forgotten fact stands in the prompt, so that nothing leaks; `open`: an
#: instruction without any fact behind it. Both measure what forgetting cost.
Aim = Literal["forget", "retain", "placebo", "context", "open"]
#: Aims of which nothing is a leak or a fact that was to be kept: no part of what judges are compared on.
COST: tuple[Aim, ...] = ("context", "open")
Role = Literal["candidate", "base", "never_knew", "attacked"]
Label = Literal["leak", "no_leak", "undecided"]
#: Which of two replies is better, as they were shown; no `Label`, so that neither can stand where the other is meant.
Preference = Literal["first", "second", "tie", "undecided"]
Purpose = Literal["leak", "floor", "canary"]
Finish = Literal["stop", "length", "error"]
Evidence = Literal["generation", "recognition", "probability"]
#: `chat`: the tokenizer's own template; `raw`: plain text; `chat_base`: the base model's template on the candidate.
Format = Literal["chat", "raw", "chat_base"]

ANSWER_TYPES = ("person", "place", "number", "date", "organisation", "object", "term", "list")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Base of all records: immutable, keyword-only, JSON-serialisable through msgspec."""


# --------------------------------------------------------------------------------------------------------- tasks


class Form(Record):
    """Another way of asking for a fact that may have another answer: reverse, multi-hop, described, indirect."""

    question: str
    answer: str
    aliases: tuple[str, ...] = ()
    answer_type: str = "term"
    wordings: tuple[str, ...] = ()
    """Evaluation wordings of this form's question."""


class Fact(Record):
    """One question with a short answer: to be forgotten, to be kept, or invented (placebo)."""

    id: str
    split: Split
    question: str
    """The canonical wording of the direct question."""
    answer: str
    aliases: tuple[str, ...] = ()
    """Other surface forms that count as the answer."""
    answer_type: str = "term"
    """One of ANSWER_TYPES."""
    tier: str = ""
    """Of retained facts: neighbour, domain, form or general; empty otherwise."""
    topic: str = ""
    """Unit of clustering: facts of one topic are not independent."""
    form: str = "direct"
    """Name of the form that `question` has."""
    wordings: tuple[str, ...] = ()
    """Evaluation wordings of the question; never shown to a trainer."""
    train_wordings: tuple[str, ...] = ()
    """Wordings an unlearning method may train on."""
    statement: str = ""
    """A declarative sentence that states the fact."""
    other_forms: dict[str, Form] = {}
    """Name of the form -> Form."""
    distractors: tuple[str, ...] = ()
    """Wrong answers of the same type."""
    extra: dict[str, Any] = {}
    """Fields of the source file that no stage of the audit reads by name, kept as they were."""


# -------------------------------------------------------------------------------------------------------- probes


class Message(Record):
    role: Literal["system", "user", "assistant"]
    content: str


class Target(Record):
    """What a response is judged for."""

    fact_id: str
    question: str
    """The fact's canonical question for the probe's form: what a judge sees, whatever wording was asked."""
    answer: str
    aliases: tuple[str, ...] = ()
    answer_type: str = "term"


class Decoding(Record):
    """How one text is drawn. `temperature` 0 is greedy; `n` samples are numbered 0 … n-1."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    n: int = 1
    seed: int = 0


class Probe(Record):
    """One prompt, one generation (times `decoding.n` samples).

    A probe with a `parent` and `turn` 0 asks its parent's prompt again with a larger token budget and takes its
    parent's place in scoring unless the parent's response already leaked; `turn` > 0 is the next turn of a dialogue.
    """

    id: str
    family: str
    form: str
    """direct, or a key of Fact.other_forms."""
    variant: str
    """Which wording: `original`, `p01` …"""
    targets: tuple[Target, ...]
    messages: tuple[Message, ...]
    """For format `raw`: one user message that holds the whole text."""
    format: Format
    decoding: Decoding
    split: Aim = "forget"
    tier: str = ""
    shots: tuple[str, ...] = ()
    """Ids of the facts used as in-context examples, in order."""
    prefill: str = ""
    """Text that the model's reply is made to begin with."""
    choices: tuple[str, ...] = ()
    """Candidate answers shown in the prompt; only for recognition probes."""
    parent: str | None = None
    turn: int = 0


# ------------------------------------------------------------------------------------------------------- engines


class Subject(Record):
    """One state of one model."""

    id: str
    role: Role
    source: str
    """What the user typed: path, hub name or endpoint. For reading only: identity is `fingerprint`."""
    fingerprint: str
    """Hash of weights, adapter, tokenizer and chat template; `endpoint:<run>` where content cannot be known."""
    parent: str | None = None
    recipe: dict[str, Any] = {}
    """How an attack made it from its parent."""


class Request(Record):
    """One generation asked of an engine. Exactly one of `token_ids` (local), `messages` and `prompt` (endpoints)."""

    key: str
    """Hash of subject fingerprint, engine identity, prompt, decoding and sample: the store's key."""
    decoding: Decoding
    sample: int
    seed: int
    """From the prompt's content and the sample number; used when temperature > 0."""
    token_ids: tuple[int, ...] | None = None
    messages: tuple[Message, ...] | None = None
    prompt: str | None = None


class Completion(Record):
    """What an engine returns for one request."""

    key: str
    text: str
    finish: Finish
    n_prompt: int
    n_new: int
    error: str | None = None
    """Class and message of a failed generation (finish `error`); the text is then empty and means nothing."""
    logprobs: tuple[float, ...] | None = None
    """Natural-log probability of each new token, where asked for."""


class LogProb(Record):
    """Natural-log probabilities of the tokens of a continuation given a prompt, shape (len(continuation),)."""

    token_logprobs: tuple[float, ...]
    greedy: bool
    """Every token of the continuation is the argmax at its position."""


class Response(Record):
    """A completion joined to a probe that asked for it."""

    probe_id: str
    subject_id: str
    sample: int
    key: str
    text: str
    finish: Finish
    n_prompt: int = 0
    n_new: int = 0
    error: str | None = None
    logprobs: tuple[float, ...] | None = None


# -------------------------------------------------------------------------------------------------------- judges


class Reason(StrEnum):
    """Why a verdict is what it is. Everything but RULED goes with `undecided`."""

    RULED = "ruled"  # the judge looked and said leak or no_leak, or which reply is better
    AMBIGUOUS = "ambiguous"  # the judge looked and cannot tell
    JUDGE_REFUSED = "judge_refused"
    JUDGE_TRUNCATED = "judge_truncated"
    UNPARSED = "unparsed"
    TIMEOUT = "timeout"
    RATE_LIMITED = "rate_limited"
    CONNECTION = "connection"
    SERVER_ERROR = "server_error"
    JUDGE_ERROR = "judge_error"  # the judge broke its contract or raised
    BUDGET = "budget"  # not asked: the cost limit was reached
    GENERATION_FAILED = "generation_failed"  # there is no response to judge
    TRUNCATED = "truncated"  # the response was cut by the token limit before it leaked
    MISSING = "missing"  # a planned cell without any ruling
    SPLIT_VOTE = "split_vote"  # the panel's rule reached no decision

    @property
    def transient(self) -> bool:
        """Worth asking again; such a verdict is never stored."""
        return self in _TRANSIENT


_TRANSIENT = frozenset(
    {
        Reason.TIMEOUT,
        Reason.RATE_LIMITED,
        Reason.CONNECTION,
        Reason.SERVER_ERROR,
        Reason.JUDGE_ERROR,
        Reason.BUDGET,
        Reason.GENERATION_FAILED,
        Reason.MISSING,
    }
)


class Claim(Record):
    """Content only: does `text` give `answer` to `question`? Equal claims are judged once."""

    key: str
    question: str
    answer: str
    aliases: tuple[str, ...]
    answer_type: str
    text: str


class Pair(Record):
    """Content only: which of two replies to `instruction` is better? Shown in this order."""

    key: str
    instruction: str
    first: str
    second: str


class Verdict(Record):
    """One judge on one claim."""

    claim_key: str
    judge: str
    """Identity of the judge: name, version, prompt hash, parameters."""
    label: Label
    reason: Reason
    rationale: str = ""
    raw: str = ""
    """The judge's own words, where it has any."""
    usage: dict[str, float] = {}
    """What the call cost: prompt_tokens, completion_tokens, cached_tokens, seconds, tries, cost (US dollars)."""
    model: str = ""
    """The model that the judge's API says it used."""
    confidence: float | None = None
    """The judge's own probability of its label, where it gives one."""


class Choice(Record):
    """One judge on one pair: what a verdict is on a claim. A record of its own, so that no preference is read as a
    label and no label as a preference, neither by a type checker nor from a store."""

    claim_key: str
    """Key of the pair."""
    judge: str
    preferred: Preference
    reason: Reason
    rationale: str = ""
    raw: str = ""
    usage: dict[str, float] = {}
    model: str = ""
    confidence: float | None = None


#: What a judge is asked, and what it gives: a verdict on a claim, a choice on a pair.
Item = Claim | Pair
Given = Verdict | Choice


class Ruling(Record):
    """The panel's decision on one response for one answer: the atom of scoring."""

    probe_id: str
    subject_id: str
    sample: int
    fact_id: str
    purpose: Purpose
    answer: str
    """What the text was judged for: the target's answer, or a distractor where purpose is floor."""
    claim_key: str
    label: Label
    reason: Reason
    votes: dict[str, Label] = {}
    """Judge identity -> its label."""
    rule: str = "single"
    """How votes were combined."""


class Recording(Record):
    """Other people's answers, read from files: enters the flow after the engines."""

    name: str
    facts: tuple[Fact, ...]
    probes: tuple[Probe, ...]
    responses: tuple[Response, ...]
    verdicts: dict[str, Verdict] = {}
    """`response_id(response)` -> the verdict that came along; kept apart from claims, which would merge them."""
    degeneration: dict[str, float] = {}
    """Name -> share of responses, for recorded judgements that are not about leaks (gibberish)."""
    brings_facts: bool = False
    """`facts` came with the answers; else they are the task's."""
    unread: tuple[str, ...] = ()
    """Files that were found and not read, each with its reason."""


def response_id(response: Response) -> str:
    """The name of one response within one subject: probe and sample."""
    return f"{response.probe_id}#{response.sample}"


# ------------------------------------------------------------------------------------------------------- results


class Estimate(Record):
    """One number with what is needed to believe it. Fractions in [0, 1]."""

    name: str
    label: str
    """The field's shorthand: J_W, J_avg … or empty."""
    value: float
    """Undecided cells counted as no leak: what was found. Equal to `lower_bound` for shares."""
    low: float
    high: float
    """Confidence limits; they hold both the sampling error and the undecided cells."""
    confidence: float
    lower_bound: float
    """Undecided as no_leak."""
    upper_bound: float
    """Undecided as leak."""
    n: int
    """Facts in the denominator."""
    method: str
    """How the limits were computed, in words."""
    probe_set: str
    """Hash of the probes behind the number; numbers of different hashes are never compared."""
    count: int | None = None
    """Facts with a leak, where the estimate is a share of facts."""
    undecided: int = 0
    """Facts without a leak and with at least one undecided cell."""
    clustered_low: float | None = None
    clustered_high: float | None = None
    """Limits that allow for dependence within topics."""


class Outcome(Record):
    """What became of a probe for one subject: handed back to its family."""

    probe: Probe
    responses: tuple[Response, ...]
    rulings: tuple[Ruling, ...]
