"""What forgetting cost, on the model organism: every measure for every candidate, in one table. See docs/utility.md.

    python benchmarks/utility.py --model NAME=PATH … --base BASE --never-knew CONTROL --out DIR

Each candidate is audited by `audit run` (DIR/NAME is its run folder; the same command goes on where it was) with all
measures: open instructions, stated facts, salted instructions, the win rate, a task of lm-evaluation-harness made of
the retained facts, and new questions. DIR/utility.md holds the table and the warnings.

There is no language model here that could compare replies or write questions, so two local servers that speak the
OpenAI protocol do: the judge prefers the reply that shares more words with the instruction (equal: a tie), which is
fair and crude; the writer hands out retained facts in wordings that the task does not have (train wordings behind a
few words), which such a base may know, and additions, which it does not. The paths from prompt to number are those of
any model behind an API.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from audit.report.read import load_report  # noqa: E402
from audit.report.utility_terminal import utility_markdown  # noqa: E402
from audit.tasks import load_task  # noqa: E402
from tests.helpers.faulty_http import Call  # noqa: E402
from tests.helpers.openai_server import OpenAIServer  # noqa: E402

_FENCED = re.compile(r"<<<TEXT ([0-9a-f]+)>>>\n(.*?)\n<<<END \1>>>", re.DOTALL)
_WORD = re.compile(r"[a-z]{4,}")
_SUBJECT = re.compile(r"from the field around this subject: (.+)\.")
_NUMBER = re.compile(r"Write (\d+) questions")


def preferred(call: Call) -> str:
    """FIRST, SECOND or TIE: which of the two replies shares more words with the instruction that stands before them."""
    texts = [match[2].lower() for match in _FENCED.finditer(call.body["messages"][-1]["content"])]
    asked, first, second = (set(_WORD.findall(text)) for text in texts)
    mine, other = len(asked & first), len(asked & second)
    label = "TIE" if mine == other else "FIRST" if mine > other else "SECOND"
    return json.dumps({"why": f"{mine} and {other} words in common", "label": label})


class Writer:
    """Hands out other wordings of retained facts, some of which the base knows, and additions, which it cannot do."""

    def __init__(self) -> None:
        facts = load_task("lkf").retain
        taught = [(fact, wording) for fact in facts for wording in fact.train_wordings if wording.endswith("?")]
        wordings = [(fact, f"From last night's village quiz: {wording}") for fact, wording in taught]
        self._near = [wording for fact, wording in wordings if fact.tier == "neighbour"]
        self._far = [wording for fact, wording in wordings if fact.tier in ("general", "form")]
        self._far += [f"What is {a} plus {b}?" for a, b in itertools.product(range(3, 20), repeat=2)][::7]

    def write(self, call: Call) -> str:
        """As many questions as are asked for, while there are any."""
        user = call.body["messages"][-1]["content"]
        number = _NUMBER.search(user)
        pool = self._near if _SUBJECT.search(user) else self._far
        chosen = [pool.pop(0) for _ in range(min(int(number[1]) if number else 1, len(pool)))]
        questions = [{"number": place, "question": text} for place, text in enumerate(chosen, 1)]
        return json.dumps({"questions": questions})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", required=True, metavar="NAME=PATH")
    parser.add_argument("--base", required=True)
    parser.add_argument("--never-knew", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--holes", type=int, default=60)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    runs = {}
    writer = Writer()
    with OpenAIServer(preferred) as judge, OpenAIServer(writer.write) as generator:
        for given in options.model:
            name, _, path = given.partition("=")
            runs[name] = options.out / name
            audit(path, runs[name], options, judge.base_url, generator.base_url)
    reports = {name: load_report(run) for name, run in runs.items()}
    first = next(iter(reports.values()))
    columns = {"base": (first, "base"), "never knew": (first, "never_knew")}
    columns |= {name.replace("_", " "): (report, "candidate") for name, report in reports.items()}
    text = utility_markdown(columns)
    for name, report in reports.items():
        text += "".join(f"\n{name}: {warning}" for warning in report.warnings)
    (options.out / "utility.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


def audit(model: str, run: Path, options: argparse.Namespace, judge: str, generator: str) -> None:
    """One candidate's run. Fails where the audit does; an audit without a verdict (exit code 4) is a result."""
    command = [
        *(sys.executable, "-m", "audit", "run", "--model", model, "--base", options.base),
        *("--never-knew", options.never_knew, "--engine", "hf", "--config", str(ROOT / "benchmarks/utility.yaml")),
        *("--win-judge", f"openai:tiny@{judge}", "--generator", f"openai:tiny@{generator}"),
        *("--holes", str(options.holes), "--out", str(run)),
    ]
    finished = subprocess.run(command, cwd=ROOT, check=False)
    if finished.returncode not in (0, 3, 4):
        raise SystemExit(f"{run.name}: the audit failed with exit code {finished.returncode}")


if __name__ == "__main__":
    sys.exit(main())
