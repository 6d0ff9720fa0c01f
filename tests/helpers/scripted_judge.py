"""A judge model behind a test server: it knows the labels of the claims it is asked about, and fails on purpose.

Every claim carries a tag in its text, which stands in the prompt; the reply repeats the tag, so that a test can tell
a verdict that was attached to another claim. Faults are drawn by a seeded function of the tag and of how often the tag
was asked for, never of the order in which calls come in.
"""

from __future__ import annotations

import json
import random
import re
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from audit.judges.calibration import bundled, load
from audit.judges.rulings import make_claim
from audit.types import Claim, Reason, Target
from tests.helpers.faulty_http import Call, Changed, Fault, HalfJson, Hang, Reset, Status

_TAG = re.compile(r"Card number (\d{5}) of the index")
#: Words of the prompt's labels, by the label of the set.
WORDS = {"leak": "LEAK", "no_leak": "CLEAR"}
OPPOSITE = {"leak": "no_leak", "no_leak": "leak"}


@dataclass(frozen=True)
class Labelled:
    claim: Claim
    label: str
    tag: str


def labelled_claims(n: int) -> list[Labelled]:
    """n different claims with their labels: the calibration items over and over, each text with a number of its own."""
    items = load(bundled())
    made = []
    for index in range(n):
        item = items[index % len(items)]
        target = Target(
            fact_id=item.id,
            question=item.question,
            answer=item.answer,
            aliases=item.aliases,
            answer_type=item.answer_type,
        )
        tag = f"{index:05d}"
        made.append(Labelled(make_claim(target, f"{item.response}\nCard number {tag} of the index."), item.label, tag))
    return made


def tags_in(call: Call) -> list[str]:
    """The tags of the claims that a call asks about, in order."""
    return _TAG.findall(call.text)


def one_verdict(tag: str, label: str) -> str:
    """A reply for one claim, as the prompt `leak` wants it."""
    return json.dumps({"why": f"card {tag}", "label": WORDS[label]})


def several_verdicts(asked: list[tuple[str, str]], kind: str) -> str:
    """A reply of one line a claim, as scripts want it that put several claims into a call; or a bad one."""
    lines = [f"{'YES' if label == 'leak' else 'NO'}, card {tag}" for tag, label in asked]
    if kind == "wrong_label":
        lines[0] = f"FORGOTTEN, card {asked[0][0]}"
    elif kind == "two_labels":
        lines[0] = f"It could be YES or NO, card {asked[0][0]}"
    elif kind == "words_around":
        lines.insert(0, "Sure! Here are my verdicts:")
    elif kind == "length":
        lines = lines[:1]
    return "" if kind == "empty" else "\n".join(lines)


#: What goes wrong in one call, and the reason of a verdict that is given up with it.
KINDS: dict[str, Reason] = {
    "too_many_requests": Reason.RATE_LIMITED,
    "server_error": Reason.SERVER_ERROR,
    "hang": Reason.TIMEOUT,
    "reset": Reason.CONNECTION,
    "half_json": Reason.SERVER_ERROR,
    "wrong_label": Reason.UNPARSED,
    "empty": Reason.UNPARSED,
    "filtered": Reason.JUDGE_REFUSED,
    "length": Reason.JUDGE_TRUNCATED,
    "words_around": Reason.UNPARSED,
    "two_labels": Reason.UNPARSED,
    "other_model": Reason.JUDGE_ERROR,
}


class Script:
    """Verdicts and faults of one server. `wire`: kind of fault -> the fault in the server's protocol."""

    def __init__(
        self,
        labels: Mapping[str, str],
        wire: Callable[[str], Fault],
        *,
        rate: float = 0.0,
        kinds: Iterable[str] = tuple(KINDS),
        seed: int = 0,
        reply: Callable[[str, str], str] = one_verdict,
    ) -> None:
        self.labels = labels
        self.wire = wire
        self.rate = rate
        self.kinds = tuple(kinds)
        self.seed = seed
        self.reply = reply
        self.history: defaultdict[str, list[str]] = defaultdict(list)
        """Tag -> what happened to each call about it: a kind of fault, or "" for a good answer."""
        self.injected: Counter[str] = Counter()
        """Kind of fault -> calls that were hit by it."""
        self._due: dict[int, str] = {}
        self._lock = threading.Lock()

    def fault_for(self, call: Call) -> Fault:
        """The fault of this call, one draw a call: each kind has probability `rate`."""
        tags = tags_in(call)
        if not tags:
            return None
        with self._lock:
            nth = len(self.history[tags[0]])
            draw = random.Random(f"{self.seed}/{tags[0]}/{nth}").random()
            index = int(draw / self.rate) if self.rate else len(self.kinds)
            kind = self.kinds[index] if index < len(self.kinds) else ""
            for tag in tags:
                self.history[tag].append(kind)
            if kind:
                self.injected[kind] += 1
                self._due[id(call)] = kind  # the server keeps its calls, so that no two have one id
        return self.wire(kind) if kind and kind not in TEXTS else None

    def answer(self, call: Call) -> str:
        """The text of the reply: the verdicts on the claims of the prompt, or what the due fault makes of it."""
        kind = self._due.pop(id(call), "")
        tags = tags_in(call)
        if not tags:  # a call that asks whether the judge is there
            return one_verdict("none", "leak")
        if len(tags) > 1:
            return several_verdicts([(tag, self.labels[tag]) for tag in tags], kind)
        text = TEXTS.get(kind, self.reply)
        return text(tags[0], self.labels[tags[0]])


#: Faults that are a text: what the model says, and nothing that the protocol could show.
TEXTS: dict[str, Callable[[str, str], str]] = {
    "wrong_label": lambda tag, label: json.dumps({"why": f"card {tag}", "label": "FORGOTTEN"}),
    "empty": lambda tag, label: "",
    "words_around": lambda tag, label: f"Sure! My verdict on card {tag} is {WORDS[label]}, I hope that this helps.",
    "two_labels": lambda tag, label: f"{WORDS[OPPOSITE[label]]}\n{WORDS[label]}",
}


def openai_fault(hang_s: float) -> Callable[[str], Fault]:
    """Faults as a server of OpenAI's protocol shows them."""
    return {
        "too_many_requests": Status(429, {"retry-after": "0"}),
        "server_error": Status(500),
        "hang": Hang(hang_s),
        "reset": Reset(),
        "half_json": HalfJson(),
        "filtered": Changed(choice={"finish_reason": "content_filter"}, message={"content": None}),
        "length": Changed(choice={"finish_reason": "length"}),
        "other_model": Changed({"model": "somebody-else"}),
    }.__getitem__


def gemini_fault(hang_s: float) -> Callable[[str], Fault]:
    """The same as a server of the Gemini API shows them."""
    from tests.helpers.gemini_server import exhausted, refused

    return {
        "too_many_requests": exhausted("0s"),
        "server_error": refused(500, "INTERNAL"),
        "hang": Hang(hang_s),
        "reset": Reset(),
        "half_json": HalfJson(),
        "filtered": Changed(choice={"finishReason": "SAFETY"}, message={"parts": None}),
        "length": Changed(choice={"finishReason": "MAX_TOKENS"}),
        "other_model": Changed({"modelVersion": "somebody-else"}),
    }.__getitem__
