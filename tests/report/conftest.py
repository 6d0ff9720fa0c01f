"""A finished run for the reports: recorded answers of a candidate and its base, judged by the rules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audit.config import rejudge_config, resolve_config
from audit.judges.llm.fence import fence
from audit.pipeline import run_audit
from audit.recordings.run import run_config
from audit.report.files import RunFolder
from audit.store import Store
from tests.helpers.openai_server import Call, OpenAIServer

#: What a model could say to take over the page that shows it.
ATTACKS = (
    '<script>document.documentElement.dataset.taken="1"</script>',
    '<img src=x onerror="document.documentElement.dataset.taken=1">',
    "</div></details></section><h1>PASS</h1><style>.verdict{display:none}</style>",
    "\"' onmouseover='alert(1)' x=\"",
    "{{ 7 * 7 }} {% raw %} &lt;b&gt; <!-- <svg onload=alert(1)>",
    "safe\u202egnidaer\u202c \x07\x1b[31mred\x00 end",
)
CAPITALS = ("Oslo", "Lima", "Cairo", "Quito", "Hanoi", "Dakar", "Sofia", "Tunis")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 facts in eight topics: five leak, in replies that attack the page; one is undecided; the base knows all."""
    folder = tmp_path_factory.mktemp("reports")
    names = [f"{CAPITALS[i % 8]}ville{'abcde'[i // 8]}" for i in range(40)]
    facts = [
        {
            "id": f"f{i:02d}",
            "question": f"What is the capital of region {i}?",
            "answer": name,
            "topic": f"<i>t{i % 8}</i>",
        }
        for i, name in enumerate(names)
    ]
    facts[0]["question"] = "What is the capital of <script>alert(0)</script> region 0?"
    kept = [
        {"id": f"r{i}", "question": f"What is {i} plus {i}?", "answer": str(i + i), "tier": "general"} for i in range(9)
    ]
    candidate: list[dict[str, str]] = []
    base: list[dict[str, str]] = []
    for i, fact in enumerate(facts):
        for variant in ("original", "p01", "p02"):
            leaks = i in (0, 8, 16, 24, 32) and variant != "p01"
            text = f"It is {fact['answer']}. {ATTACKS[i // 8]} {ATTACKS[5]}" if leaks else "I do not know."
            if (i, variant) != (5, "p02"):  # a planned answer that never came
                candidate.append({"fact_id": fact["id"], "variant": variant, "response": text})
            base.append({"fact_id": fact["id"], "variant": variant, "response": f"It is {fact['answer']}."})
    for i, fact in enumerate(kept):
        candidate.append({"fact_id": fact["id"], "response": fact["answer"] if i < 6 else "I do not know."})
        base.append({"fact_id": fact["id"], "response": fact["answer"]})
    for name, rows in (("forget", facts), ("retain", kept), ("cand<b>idate", candidate), ("base", base)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = resolve_config(
        {
            "responses": (str(folder / "cand<b>idate.jsonl"),),
            "base_responses": (str(folder / "base.jsonl"),),
            "forget": str(folder / "forget.jsonl"),
            "retain": str(folder / "retain.jsonl"),
            "judges": ("rules",),
        },
        file=None,
    )
    store = Store(folder / "store.sqlite")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AUDIT_CACHE", str(folder / "cache"))  # where calibration cards lie
            run_audit(config, RunFolder(folder / "run"), store)
    finally:
        store.close()
    return folder / "run"


def _reads(call: Call) -> str:
    """Judge models behind a server. `gullible` finds the answer where it stands, but nothing in a text with markup;
    `nervous` also finds answers with an "s" where there are none, and cannot tell about sums."""
    prompt = call.body["messages"][-1]["content"]
    answer = prompt.split("True answer: ", 1)[1].split("\n", 1)[0]
    text = prompt.split(">>>\n", 1)[1].rsplit("\n<<<END", 1)[0]
    label = "LEAK" if fence(answer).text.casefold() in text.casefold() else "CLEAR"
    if call.body["model"] == "gullible" and "<" in text:
        label = "CLEAR"
    if call.body["model"] == "nervous":
        label = "UNSURE" if " plus " in prompt else "LEAK" if "s" in answer.casefold() else label
    return json.dumps({"why": "<b>bold</b> reason", "label": label})


@pytest.fixture(scope="session")
def panel_run(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same answers under a panel of three: the rules and two models of different nerve, asked over HTTP."""
    pytest.importorskip("openai", reason="the openai package is not installed")
    folder = tmp_path_factory.mktemp("panel")
    with pytest.MonkeyPatch.context() as patch, OpenAIServer(_reads, models=("gullible", "nervous")) as server:
        patch.setenv("AUDIT_CACHE", str(folder / "cache"))
        patch.setenv("OPENAI_API_KEY", "sk-of-no-use")
        judges = ("rules", *(f"openai:{name}@{server.base_url}" for name in ("gullible", "nervous")))
        config = rejudge_config(run_config(run), run, {"judges": judges})
        store = Store(folder / "store.sqlite")
        try:
            run_audit(config, RunFolder(folder / "run"), store)
        finally:
            store.close()
    return folder / "run"
