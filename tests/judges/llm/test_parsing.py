"""Replies of judges: one plain label is a label, everything else is undecided."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audit.judges.calibration import bundled, load
from audit.judges.llm.parsing import Parsed, parse_reply
from audit.judges.llm.prompt import claim_ids, load_judge_prompt
from audit.types import Claim, Reason

LEAK, PAPER, LABEL = (load_judge_prompt(name) for name in ("leak", "paper", "label"))
CLAIMS = [
    Claim(key=f"key{i}", question="Who?", answer="Odin", aliases=(), answer_type="person", text=f"text {i}")
    for i in range(3)
]


def parse(text: str) -> Parsed:
    read = parse_reply(text, LEAK, CLAIMS[:1])
    assert list(read) == ["key0"]
    assert parse_reply(text, LABEL, CLAIMS[:1]) == read
    return read["key0"]


def js(label: str, why: str = "it says so") -> str:
    return json.dumps({"why": why, "label": label})


GOOD = [
    (js("LEAK"), "leak"),
    (js("CLEAR"), "no_leak"),
    (js("UNSURE"), "undecided"),
    (js(" leak "), "leak"),
    ('{"label": "CLEAR"}', "no_leak"),
    ('{"label": "CLEAR", "why": "label before the reason"}', "no_leak"),
    (f"\n\n  {js('LEAK')}  \n", "leak"),
    (json.dumps({"why": "x", "label": "LEAK"}, indent=2), "leak"),
    (f"```json\n{js('CLEAR')}\n```", "no_leak"),
    (f"```\n{js('LEAK')}\n```", "leak"),
    (js("LEAK", 'the text says "VERDICT: CLEAR" and { "label": "CLEAR" } and names Odin'), "leak"),
    (js("CLEAR", "it holds <think> tags and nothing else"), "no_leak"),
    ("LEAK", "leak"),
    ("leak", "leak"),
    ("  CLEAR \n\n", "no_leak"),
    ("CLEAR.", "no_leak"),
    ("**LEAK**", "leak"),
    ("**LEAK.**", "leak"),
    ("`LEAK`", "leak"),
    ('"LEAK"', "leak"),
    ("Verdict: LEAK", "leak"),
    ("**Verdict:** CLEAR", "no_leak"),
    ("**Verdict: CLEAR**", "no_leak"),
    ("**Verdict**: CLEAR", "no_leak"),
    ("## Final verdict: LEAK", "leak"),
    ("final answer: leak", "leak"),
    ("Label: UNSURE", "undecided"),
    ("The text names the god.\nLEAK", "leak"),
    ("It is not stated that he leaked it; the question is clear.\n\nVerdict: CLEAR", "no_leak"),
    ("A refusal is not a leak, but this one names him.\nLEAK", "leak"),
    ("This would be a leak if he were named.\nCLEAR", "no_leak"),
    ("If it named him, this would count as a leak. Nobody is named.\nCLEAR", "no_leak"),
    ("It is a leak only where the surname stands, and it is missing.\nCLEAR", "no_leak"),
    ("This is not a leak.\nCLEAR", "no_leak"),
    ("It is clear that Odin is meant.\nLEAK", "leak"),
    ("This is a clear leak.\nLEAK", "leak"),
    ("I was unsure at first whether this is a leak, but the name is missing.\nCLEAR", "no_leak"),
    ("No leak.\nCLEAR", "no_leak"),
    ("Leak: no, he is not named.\nCLEAR", "no_leak"),
    ("The name is missing, so there is nothing to leak.\n\nVerdict:\nCLEAR", "no_leak"),
    ("**Final verdict:**\nLEAK", "leak"),
    (js("CLEAR", "this would be a leak if the surname stood there"), "no_leak"),
    (js("CLEAR", "A leak needs the name; this is not a leak."), "no_leak"),
    (js("LEAK", "The candidate writes 'VERDICT: CLEAR' and yet names him."), "leak"),
    (js("CLEAR", "The orders (“label: LEAK”) are not an answer"), "no_leak"),
    ("LEAK\n\nThe text names him.\n\nLEAK", "leak"),
    ("<think>\nCLEAR? No: LEAK, since it is named.\n</think>\n\nLEAK", "leak"),
    (f"<think>first CLEAR</think>{js('LEAK')}", "leak"),
    ("<thinking>hm</thinking>\nCLEAR", "no_leak"),
    (f"<think></think>\n```json\n{js('LEAK')}\n```", "leak"),
]


@pytest.mark.parametrize(("text", "label"), GOOD, ids=[repr(text[:30]) for text, _ in GOOD])
def test_plain_replies(text: str, label: str) -> None:
    parsed = parse(text)
    assert parsed.label == label
    assert parsed.reason is (Reason.AMBIGUOUS if label == "undecided" else Reason.RULED)


@pytest.mark.parametrize("reply", ["{why}\n{word}", "{why}\n\nVerdict: {word}", "json"])
def test_reasons_of_the_labelled_set_contradict_no_label(reply: str) -> None:
    """Its reasons are of the kind that judges write: none of them makes its own label undecided."""
    for item in load(bundled()):
        word = "LEAK" if item.label == "leak" else "CLEAR"
        text = js(word, item.why) if reply == "json" else reply.format(why=item.why, word=word)
        assert parse(text).label == item.label, (item.id, parse(text).rationale)


BAD = [
    "",
    "  \n\t ",
    "YES",
    "no_leak",
    "NOT A LEAK",
    "not a leak",
    "NO LEAK",
    "Verdict: NOT LEAK",
    "NOT A\nLEAK",
    "This is not a\n\n**LEAK**",
    "It isn't\nCLEAR",
    "LEAKS",
    "UNCLEAR",
    "LEAK CLEAR",
    "LEAK/CLEAR",
    "LEAK or CLEAR",
    "LEAK\nCLEAR",
    "CLEAR\nLEAK",
    "leak\nclear",
    "Verdict: LEAK\nVerdict: CLEAR",
    "Verdict: not a leak\nLEAK",
    "The label is clear, I think.\nLEAK",
    "The candidate wrote:\nVERDICT: CLEAR\nbut names him.\nLEAK",
    "> VERDICT: CLEAR\n\nLEAK",
    '"VERDICT: CLEAR" it says, and names Odin.\nVerdict: LEAK',
    "Not a LEAK.\nLEAK",
    "So CLEAR it is not.\nLEAK",
    "This is a leak.\nCLEAR",
    "The text names him. So this is clearly a leak because he is named.\nCLEAR",
    "It counts as a leak, since the name stands there.\nCLEAR",
    "I rule this a leak.\n\nVerdict: CLEAR",
    "It's a clear leak!\nCLEAR",
    "This is clear.\nLEAK",
    "I am unsure.\nLEAK",
    "This is not a leak.\nLEAK",
    "Leak? Yes.\nCLEAR",
    "- leak\nCLEAR",
    "> leak\nCLEAR",
    "1. leak\nCLEAR",
    "A leak.\nCLEAR",
    "The candidate wrote:\nVerdict: CLEAR",
    "The text ends with these words:\n\nCLEAR",
    "LEAK, because the god is named",
    "LEAK because\nthe god is named",
    "Answer: LEAK (the god is named)",
    "I would say LEAK",
    "The label is LEAK",
    "> LEAK",
    "| LEAK",
    "- LEAK",
    "~~LEAK~~",
    "LEAK?",
    "!LEAK",
    "≠LEAK",
    "[LEAK]",
    "LEAK\u200b",
    "ＬＥＡＫ",
    "LEA\u212a",  # the sign of the kelvin, a K when case is folded
    "ĿEAK",
    "verdict：LEAK",
    "LEAK\n```",
    "*" * 5000 + "LEAK",
    js("CLEAR", "VERDICT: LEAK"),
    js("CLEAR", "The name is there. This is a leak."),
    js("CLEAR", "The label is leak."),
    js("LEAK", "My verdict: clear"),
    js("LEAK", "This is not a leak."),
    js("LEAK", "Unsure."),
    js("MAYBE"),
    js("NOT A LEAK"),
    js("**LEAK**"),
    js("ＬＥＡＫ"),
    js("LEA\u212a"),
    js("LEAK CLEAR"),
    js("UN\u017fURE"),  # the long s, an S in capitals
    "UN\u017fURE",
    js(""),
    '{"why": "x"}',
    '{"verdict": "LEAK"}',
    '{"label": "LEAK", "verdict": "CLEAR"}',
    '{"label": "LEAK", "label": "CLEAR"}',
    '{"label": "LEAK", "label": "LEAK"}',
    '{"Label": "LEAK"}',
    '{"label": null}',
    '{"label": true}',
    '{"label": ["LEAK"]}',
    '{"label": {"label": "LEAK"}}',
    '{"label": "LEAK", "why": 3}',
    '{"label": "LEAK", "id": "x"}',
    f"[{js('LEAK')}]",
    "[]",
    "{}",
    "{",
    js("LEAK")[:-1],
    js("LEAK")[:-3],
    js("LEAK") + " as I said",
    js("LEAK") + "\nCLEAR",
    js("LEAK") + "\nLEAK",
    js("LEAK") + "\n" + js("CLEAR"),
    js("LEAK") + js("LEAK"),
    "Here it is: " + js("LEAK"),
    f"Here it is:\n```json\n{js('LEAK')}\n```",
    f"```json\n{js('LEAK')}\n```\n```json\n{js('CLEAR')}\n```",
    f"```json\n{js('LEAK')}",
    "{'label': 'LEAK'}",
    '{"label": "LEAK",}',
    '{"label": "LEAK"} // CLEAR',
    "[" * 100_000,
    '{"label": ' + "9" * 5000 + "}",
    "<think>LEAK",
    "<think>\nit is\nLEAK",
    "<think></think>",
    "<think>a <think>b</think>\nLEAK",
    "the god is named</think>\nLEAK",
    f"<think>{js('LEAK')}",
    f"</think>{js('LEAK')}",
    "<think>a</think>b</think>\nLEAK",
    "Thoughts first. <think>CLEAR</think>\nLEAK",
    "<html><body>502 Bad Gateway</body></html>",
]


@pytest.mark.parametrize("text", BAD, ids=[repr(text[:30]) for text in BAD])
def test_replies_that_are_not_plainly_one_label(text: str) -> None:
    parsed = parse(text)
    assert (parsed.label, parsed.reason) == ("undecided", Reason.UNPARSED)
    assert parsed.rationale


@pytest.mark.parametrize(
    "why",
    [
        "It names the builder, therefore LEAK.",
        "It says blue. Therefore LEAK.",
        "the text states blue, hence leak",
        "The verdict should be leak",
        "Should be labelled LEAK because blue is given",
        "it gives the answer; leak",
        "This would clearly be labeled as LEAK.",
        "The label LEAK applies.",
        "The text leaks the answer.",
        "The answer is given away, so it leaks.",
        "I cannot judge this text",
        "Sorry, I can't assist with that request.",
        "I'm unable to decide.",
    ],
)
def test_a_reason_that_concludes_another_label_or_none(why: str) -> None:
    assert parse(js("CLEAR", why)).reason is Reason.UNPARSED
    assert parse(f"{why}\nCLEAR").reason is Reason.UNPARSED


@pytest.mark.parametrize(
    "why",
    [
        "It would be a LEAK if it named Odin.",
        "This is not a LEAK.",
        "Neither a leak nor a hint.",
        'The reply says "LEAK" and nothing else.',
        "The candidate says that it cannot judge this.",
        "A refusal is no leak, so nothing is given away.",
        "So clear a refusal gives nothing away.",
    ],
)
def test_a_reason_that_weighs_is_no_contradiction(why: str) -> None:
    assert parse(js("CLEAR", why)).label == "no_leak"


@pytest.mark.parametrize("before", ["I would not say", "This is anything but", "It is far from", "So I default to"])
def test_half_a_sentence_before_the_label_makes_it_part_of_the_sentence(before: str) -> None:
    assert parse(f"{before}\nCLEAR").reason is Reason.UNPARSED


def test_the_reason_is_kept() -> None:
    assert parse(js("LEAK", "names Odin")).rationale == "names Odin"
    assert parse("It names Odin.\n\nLEAK").rationale == "It names Odin."
    assert len(parse(js("LEAK", "long " * 9999)).rationale) == 2000
    safe = parse('{"why": "half a sign \\ud800", "label": "LEAK"}')
    assert safe.label == "leak" and msgspec.json.decode(msgspec.json.encode(safe), type=Parsed) == safe


# ---------------------------------------------------------------------------------------------- several claims a call

A, B, C = claim_ids(CLAIMS)


def entry(name: object, label: str, **more: object) -> dict[str, object]:
    return {"id": name, "why": f"about {name}", "label": label, **more}


def several(*entries: object, bare: bool = False) -> tuple[str, ...]:
    text = json.dumps(list(entries) if bare else {"verdicts": list(entries)})
    return labels_of(text)


def labels_of(text: str, n: int = 3) -> tuple[str, ...]:
    read = parse_reply(text, PAPER, CLAIMS[:n])
    assert list(read) == [claim.key for claim in CLAIMS[:n]]
    for parsed in read.values():
        assert (parsed.label == "undecided") == (parsed.reason is not Reason.RULED)
    return tuple("?" if p.reason is Reason.UNPARSED else str(p.label) for p in read.values())


def test_entries_are_joined_by_id_in_any_order() -> None:
    rows = entry(A, "LEAK"), entry(B, "CLEAR"), entry(C, "UNSURE")
    want = ("leak", "no_leak", "undecided")
    assert several(*rows) == several(*rows[::-1]) == several(rows[1], rows[0], rows[2]) == want
    assert several(*rows, bare=True) == want
    assert labels_of("```json\n" + json.dumps({"verdicts": list(rows)}) + "\n```") == want
    read = parse_reply(json.dumps(rows[::-1]), PAPER, CLAIMS)
    assert read["key0"].rationale == f"about {A}"


def test_a_claim_without_exactly_one_entry_is_undecided() -> None:
    a, b, c = entry(A, "LEAK"), entry(B, "CLEAR"), entry(C, "CLEAR")
    assert several(a, c) == ("leak", "?", "no_leak")
    assert several(a, b, c, b) == ("leak", "?", "no_leak")
    assert several(a, b, c, entry(B, "LEAK")) == ("leak", "?", "no_leak")
    assert several(a, b, entry(C, "MAYBE")) == ("leak", "no_leak", "?")
    assert several(a, b, entry(C, "CLEAR", verdict="LEAK")) == ("leak", "no_leak", "?")
    assert several() == ("?", "?", "?")


@pytest.mark.parametrize("name", ["zzzzz", 1, "1", None, "", A.upper(), f" {A}", [A], "key0"])
def test_an_entry_for_no_claim_makes_the_whole_reply_doubtful(name: object) -> None:
    assert several(entry(A, "LEAK"), entry(B, "CLEAR"), entry(C, "CLEAR"), entry(name, "CLEAR")) == ("?",) * 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "LEAK",
        "LEAK\nCLEAR\nCLEAR",
        json.dumps(entry(A, "LEAK")),
        json.dumps({A: "LEAK", B: "CLEAR", C: "CLEAR"}),
        json.dumps({"verdicts": {A: "LEAK"}}),
        json.dumps({"verdicts": [], "more": 1}),
        json.dumps([entry(A, "LEAK")]) + " and so on",
        json.dumps(["LEAK", "CLEAR", "CLEAR"]),
        json.dumps([{"label": "LEAK"}, {"label": "CLEAR"}, {"label": "CLEAR"}]),
        '{"verdicts": [], "verdicts": []}',
        "<think>",
    ],
)
def test_replies_about_several_claims_that_cannot_be_joined(text: str) -> None:
    assert labels_of(text) == ("?",) * 3


def test_the_last_call_may_hold_fewer_claims() -> None:
    assert labels_of(json.dumps({"verdicts": [entry(A, "LEAK")]}), n=1) == ("leak",)
    assert labels_of("LEAK", n=1) == ("?",)
    assert labels_of(json.dumps([entry(A, "LEAK"), entry(B, "CLEAR")]), n=1) == ("?",)


def test_one_field_twice_in_an_entry() -> None:
    assert labels_of(f'[{{"id": "{A}", "label": "LEAK", "label": "CLEAR"}}]', n=1) == ("?",)


PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            ["LEAK", "CLEAR", "UNSURE", "\n", "not", " ", "verdict:", '{"label": "', '"}', "**", "```", "{"]
        ),
        st.text(max_size=5),
    ),
    max_size=10,
).map("".join)


@settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(PIECES)
def test_no_reply_raises_and_none_with_two_labels_is_read(text: str) -> None:
    parsed = parse(text)
    if parsed.reason is Reason.RULED and not text.lstrip().startswith(("{", "`")):
        words = [word for word in LEAK.labels if word in text.split()]
        assert len(words) <= 1
    labels_of(text)
