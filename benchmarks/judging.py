"""How fast a judge behind an API gets through a bad connection, and what is lost on the way, beside the common script.

    python benchmarks/judging.py                                # 3,200 claims, 300 ms a call; about seven minutes
    python benchmarks/judging.py --claims 400 --latency 0.1

Both ask the same server, a process of its own on this machine that speaks OpenAI's protocol and knows the labels of
the claims (the calibration items, each numbered). Of a hundred calls one each is answered 429, 500, not at all, with a
reset in the middle, with half a JSON text, with a label that does not exist, with nothing, withheld by a filter, cut
by the token limit, with words around the verdict, with two labels, by another model.

`panel` is this project's judge `openai` in its pool, one claim a call, at most 128 calls at the same time. `script` is
the loop that is commonly written: three claims a call, one call after the other, no retries, a call that raises is
skipped, the lines of a reply belong to the claims by their position, and whatever is no yes is a no.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
#: Far longer than any timeout.
HANG_S = 3600.0
SCRIPT_PROMPT = (
    "For each of the numbered responses: does it contain the ground-truth answer to its question? "
    "Reply with one line for each response, in their order, and nothing else: YES or NO."
)


def serve(pipe: Connection, claims: int, latency: float, rate: float, seed: int) -> None:
    """The server's process: sends its address, and when told to stop, what it counted."""
    from tests.helpers.openai_server import OpenAIServer
    from tests.helpers.scripted_judge import Script, labelled_claims, openai_fault

    labels = {labelled.tag: labelled.label for labelled in labelled_claims(claims)}
    script = Script(labels, openai_fault(HANG_S), rate=rate, seed=seed)
    with OpenAIServer(script.answer, delay=latency) as server:
        server.fault_for = script.fault_for
        pipe.send(server.base_url)
        pipe.recv()
        pipe.send((script.injected.total(), len(server.calls), server.most_at_once))


class Server:
    """`serve` in a process of its own: the server must not take the client's share of the interpreter."""

    def __init__(self, *options: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=serve, args=(there, *options), daemon=True)

    def __enter__(self) -> Server:
        self._process.start()
        self.base_url: str = self._pipe.recv()
        return self

    def stop(self) -> tuple[int, int, int]:
        """Calls that were hit by a fault; all calls; most of them at the same time."""
        self._pipe.send("stop")
        done: tuple[int, int, int] = self._pipe.recv()
        return done

    def __exit__(self, *_: object) -> None:
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()


def panel(base_url: str, asked: Sequence[Any], timeout_s: float) -> tuple[float, dict[str, tuple[str, str, str]]]:
    """Wall seconds; tag -> label, tag that the verdict's own words name, reason."""
    from audit.judges import get_judge
    from audit.judges.pool import JudgePool

    began = time.perf_counter()
    judge = get_judge(f"openai:tiny@{base_url}?timeout_s={timeout_s}")
    pool = JudgePool([judge], None)
    try:
        pool.submit([labelled.claim for labelled in asked])
        pool.drain()
    finally:
        pool.close()
    seconds = time.perf_counter() - began
    found = {}
    for labelled in asked:
        verdict = pool.verdicts.get(labelled.claim.key, {}).get(judge.identity)
        if verdict is not None:
            named = verdict.rationale.removeprefix("card ") if verdict.label != "undecided" else ""
            found[labelled.tag] = (verdict.label, named, str(verdict.reason))
    return seconds, found


def script(base_url: str, asked: Sequence[Any], timeout_s: float) -> tuple[float, dict[str, tuple[str, str, str]]]:
    """The same of the serial loop."""
    import openai

    client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=timeout_s)
    found: dict[str, tuple[str, str, str]] = {}
    began = time.perf_counter()
    for start in range(0, len(asked), 3):
        batch = asked[start : start + 3]
        text = "\n\n".join(
            f"{i}. Question: {a.claim.question}\nGround truth: {a.claim.answer}\nResponse: {a.claim.text}"
            for i, a in enumerate(batch, 1)
        )
        try:
            reply = client.chat.completions.create(
                model="tiny",
                temperature=0,
                messages=[{"role": "system", "content": SCRIPT_PROMPT}, {"role": "user", "content": text}],
            )
            lines = (reply.choices[0].message.content or "").splitlines()
        except Exception as error:  # noqa: BLE001  # what it is compared with: skip and go on
            print(f"  script: skipped: {type(error).__name__}", file=sys.stderr)
            continue
        for labelled, line in zip(batch, [*lines, *[""] * len(batch)], strict=False):
            label = "leak" if line.lower().startswith("yes") else "no_leak"
            found[labelled.tag] = (label, line.rpartition("card ")[2] if "card " in line else "", "")
    return time.perf_counter() - began, found


def tell(
    name: str,
    seconds: tuple[float, float],
    found: dict[str, tuple[str, str, str]],
    asked: Sequence[Any],
    server: tuple[int, int, int],
) -> None:
    """Print what became of the claims."""
    faults, calls, most = server
    labels = {labelled.tag: labelled.label for labelled in asked}
    decided = {tag: given for tag, given in found.items() if given[0] != "undecided"}
    undecided = Counter(given[2] for given in found.values() if given[0] == "undecided")
    wrong = [tag for tag, given in decided.items() if given[0] != labels[tag]]
    wall, used = seconds
    print(
        f"{name}: {wall:.1f} s, {used:.1f} s of CPU, {calls:,} calls, at most {most} at once, {faults:,} hit by a fault"
    )
    print(f"  no verdict at all          {len(labels) - len(found):5}")
    print(f"  undecided, reason given    {sum(undecided.values()):5}  {dict(undecided) or ''}")
    print(f"  of another claim's text    {sum(bool(g[1]) and g[1] != tag for tag, g in decided.items()):5}")
    print(f"  wrong label                {len(wrong):5}  of these leaks called no leak: ", end="")
    print(sum(labels[tag] == "leak" for tag in wrong))
    print(f"  right                      {len(decided) - len(wrong):5}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claims", type=int, default=3200)
    parser.add_argument("--latency", type=float, default=0.3, help="seconds a call (default 0.3)")
    parser.add_argument("--rate", type=float, default=0.01, help="share of calls for each of 12 faults (default 0.01)")
    parser.add_argument("--timeout", type=float, default=3.0, help="seconds for one try, of both (default 3)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--contenders", default="panel,script")
    options = parser.parse_args()

    import aiohttp  # noqa: F401  # loading code is nobody's work
    import openai  # noqa: F401

    import audit.judges.llm.openai
    import audit.judges.pool  # noqa: F401
    from tests.helpers.scripted_judge import labelled_claims

    asked = labelled_claims(options.claims)
    print(
        f"{options.claims:,} claims, {options.latency * 1000:.0f} ms a call, {options.rate:.0%} of each of 12 faults, "
        f"{options.timeout:g} s a try; {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    walls = {}
    for name, run in (("panel", panel), ("script", script)):
        if name in options.contenders.split(","):
            with Server(options.claims, options.latency, options.rate, options.seed) as server:
                began = time.process_time()
                walls[name], found = run(server.base_url, asked, options.timeout)
                used = time.process_time() - began
                tell(name, (walls[name], used), found, asked, server.stop())
    if len(walls) == 2:
        print(f"panel is {walls['script'] / walls['panel']:.1f} times as fast as script")


if __name__ == "__main__":
    main()
