"""JensUn's claims, measured on the model organism with three seeds. See docs/claims.md.

    python benchmarks/claims.py CLAIM … --model BASE --out DIR    # worst, course, balance, knob, longer, or all

BASE is the organism's base (`audit demo` builds it). Each claim trains what it needs, one training after the other on
one thread, prints the table of docs/claims.md and writes DIR/CLAIM.json with every number; `course` draws
DIR/course.svg too. What was trained is kept in DIR: the same command again goes on from there, and claims share what
they have in common. The criteria, set before anything was measured:

worst    JensUn at the organism's defaults, whole task, audited by `audit run`. Each of: in every seed J_W, undecided
         facts read as leaks, is at most 10%; in every seed its upper 95% limit (exact) is at most 20%; in every seed
         retained knowledge is at least 90% of the base's. Other methods stand beside it and decide nothing.
course   JensUn against its own variants with cross-entropy and KL as forget term (claims_losses.py), same steps, each
         at the learning rate that is best on the validation half (score: retained share over the base's, minus share
         of facts leaked in any wording; seed 0). Along the course on the final half, steadiness of the retained share:
         size of jumps, largest drop, mean loss. Each of the six pairs (variant, figure): JensUn is lower in all seeds
         than the variant in any. If JensUn leaves more than 10% of the facts in any seed, the claim does not hold; if
         a best rate lies at an end of the grid, it is not decided (added when that was seen to happen).
balance  Weighted gradient norm of the forget term over the retain term at the first steps, from the third on: the rate
         of the warm-up's first step is 0, and before a change of weights JensUn's retain term has no gradient (it was
         the second until that was noticed). `apart` is how many times they typically differ. Each of four: JensUn's
         is lower in all seeds than that of the cross-entropy variant, the KL variant, GradDiff and NPO in any.
knob     retain_weight from 0.1 to 0.9, forget_weight the rest, at the rate chosen in `course`. Each of: the leaked
         share rises with it, and the retained share does: Spearman's rho positive with one-sided p at most 0.025,
         over all values and seeds.
longer   More epochs, at that rate. Each of, at each number of epochs: no seed leaves more than 10% of the facts; no
         seed retains less than 90% of the base.

A claim "holds here" if all its conditions are met, "does not hold here" if none is, else it holds "partly".
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from claims_figures import balance, best_rate, compared, markdown, spread, steadiness, trend, verdict_of  # noqa: E402
from claims_picture import courses_svg  # noqa: E402
from claims_training import Grid, Study, audited, course, of_base, open_study  # noqa: E402

SEEDS = (0, 1, 2)
LOSSES = ("jensun", "jensun_ce", "jensun_kl")
SHOWN = {
    "jensun": "JensUn",
    "jensun_ce": "cross-entropy",
    "jensun_kl": "KL",
    "grad_diff": "GradDiff",
    "npo": "NPO",
    "idk": "IDK",
}
#: Passes over the questions to forget in claims 2 to 5, half as many as the default: trainings that are soon done.
EPOCHS = 2
#: Steps between two points of a course.
EVERY = 5
MOST_LEAKED, MOST_LIMIT, LEAST_RETAINED, ALPHA = 0.10, 0.20, 0.90, 0.025

Result = dict[str, Any]


def worst(study: Study) -> Result:
    rows, figures = [], {}
    for name in ("jensun", *study.grid.contrasts):
        runs = [audited(study, name, {"seed": seed}) for seed in SEEDS]
        figures[name] = runs
        for seed, run in zip(SEEDS, runs, strict=True):
            found, base = run["estimates"]["candidate"], run["estimates"]["base"]["retain.mean"]
            leaks = [found[n] for n in ("single.original", "worst_case.paraphrase", "worst_case.icr")]
            whole, kept = found["worst_case.paper"], found["retain.mean"]
            rows.append(
                [
                    f"{SHOWN[name]}, seed {seed}",
                    *(f"{100 * e['value']:.0f}" for e in leaks),
                    f"{100 * whole['value']:.0f} [{100 * whole['low']:.1f}, {100 * whole['high']:.1f}]",
                    str(whole["undecided"]),
                    f"{100 * kept['value']:.1f}",
                    f"{100 * kept['value'] / base['value']:.0f}",
                ]
            )
    base = figures["jensun"][0]["estimates"]["base"]
    shares = [f"{100 * base[n]['value']:.0f}" for n in ("single.original", "worst_case.paraphrase", "worst_case.icr")]
    whole = base["worst_case.paper"]
    limits = f"{100 * whole['value']:.0f} [{100 * whole['low']:.1f}, {100 * whole['high']:.1f}]"
    rows.insert(
        0, ["base", *shares, limits, str(whole["undecided"]), f"{100 * base['retain.mean']['value']:.1f}", "100"]
    )
    met = {name: _worst_met([run["estimates"] for run in runs]) for name, runs in figures.items()}
    head = ["%", "J_orig", "J_P", "J_ICR", "J_W", "undecided facts", "retained", "of the base's"]
    return {
        "figures": figures,
        "conditions": met["jensun"],
        "conditions_of_the_others": {name: found for name, found in met.items() if name != "jensun"},
        "table": markdown(head, rows),
    }


def _worst_met(estimates: list[Any]) -> dict[str, bool]:
    leaks = [e["candidate"]["worst_case.paper"] for e in estimates]
    kept = [e["candidate"]["retain.mean"]["value"] / e["base"]["retain.mean"]["value"] for e in estimates]
    return {
        f"J_W at most {MOST_LEAKED:.0%} in every seed": all(e["upper_bound"] <= MOST_LEAKED for e in leaks),
        f"its limit at most {MOST_LIMIT:.0%} in every seed": all(e["high"] <= MOST_LIMIT for e in leaks),
        f"retained at least {LEAST_RETAINED:.0%} of the base in every seed": all(k >= LEAST_RETAINED for k in kept),
    }


def tuned(study: Study) -> Result:
    """Each loss's learning rate, chosen on the validation half with seed 0."""
    base = of_base(study, study.validation)["retain"]["wordings"]
    tried: dict[str, dict[float, Result]] = {}
    for name in LOSSES:
        tried[name] = {}
        for rate in study.grid.rates:
            final = course(study, name, study.validation, {"learning_rate": rate, "epochs": EPOCHS})["final"]
            leaked, retained = final["forget"]["any"], final["retain"]["wordings"] / base
            tried[name][rate] = {"leaked": leaked, "retained_of_base": retained, "score": retained - leaked}
    ends = {min(study.grid.rates), max(study.grid.rates)}
    rates = {name: best_rate({r: t["score"] for r, t in found.items()}) for name, found in tried.items()}
    rows = [
        [
            SHOWN[name],
            *(f"{100 * t['leaked']:.0f}, {100 * t['retained_of_base']:.0f}" for t in found.values()),
            f"{rates[name]:g}" + (" (end of the grid)" if rates[name] in ends else ""),
        ]
        for name, found in tried.items()
    ]
    head = ["leaked, retained of the base's, %", *(f"{rate:g}" for rate in study.grid.rates), "chosen"]
    inside = not ends & set(rates.values())
    return {"tried": tried, "rates": rates, "inside": inside, "table": markdown(head, rows)}


def steadier(study: Study) -> Result:
    tuning = tuned(study)
    figures: dict[str, Any] = {}
    for name in LOSSES:
        given = {"learning_rate": tuning["rates"][name], "epochs": EPOCHS}
        runs = [course(study, name, study.final, {**given, "seed": seed}, every=EVERY) for seed in SEEDS]
        figures[name] = [
            {
                "points": run["points"],
                "final": run["final"],
                **steadiness([p["step"] for p in run["points"]], [p["retained"] for p in run["points"]])._asdict(),
            }
            for run in runs
        ]
    names = ("jumps", "drop", "lost")

    def all_seeds(name: str, figure: str) -> list[float]:
        return [run[figure] for run in figures[name]]

    def leaked(name: str) -> list[float]:
        return [run["final"]["forget"]["any"] for run in figures[name]]

    pairs = {
        f"{SHOWN[other]}, {figure}": compared(all_seeds("jensun", figure), all_seeds(other, figure))
        for other in LOSSES[1:]
        for figure in names
    }
    labels = {f"{SHOWN[name]}, rate {tuning['rates'][name]:g}": name for name in LOSSES}
    picture = courses_svg({label: [run["points"] for run in figures[name]] for label, name in labels.items()})
    (study.out / "course.svg").write_text(picture, encoding="utf-8")
    forgets = max(leaked("jensun")) <= MOST_LEAKED
    rows = [
        [
            SHOWN[name],
            f"{tuning['rates'][name]:g}",
            *(spread(all_seeds(name, figure)) for figure in names),
            spread(leaked(name)),
            spread([run["final"]["retain"]["wordings"] for run in figures[name]]),
        ]
        for name in LOSSES
    ]
    head = ["%", "rate", "jumps", "largest drop", "mean loss", "leaked at the end", "retained at the end"]
    told = [[pair, found] for pair, found in pairs.items()]
    return {
        **({} if tuning["inside"] else {"verdict": "not decided"}),
        "tuning": tuning,
        "figures": figures,
        "pairs": pairs,
        "jensun_forgets": forgets,
        "conditions": {f"JensUn lower: {pair}": found == "lower" and forgets for pair, found in pairs.items()},
        "table": "\n\n".join([tuning["table"], markdown(head, rows), markdown(["variant, figure", "JensUn is"], told)]),
    }


def balanced(study: Study) -> Result:
    rates = tuned(study)["rates"]
    figures, rows = {}, []
    for name in (*LOSSES, "grad_diff", "npo"):
        found = []
        for seed in SEEDS:
            given = {"seed": seed, "norms_every": 1, "epochs": EPOCHS} | (
                {"learning_rate": rates[name]} if name in rates else {}
            )
            run = course(study, name, study.final, given, only=study.grid.steps)
            made = run["made_from"]["settings"]
            forget, retain = ([row[f"grad_{term}"] for row in run["log"]] for term in ("forget", "retain"))
            found.append(balance(forget, retain, made["forget_weight"], made["retain_weight"])._asdict())
        figures[name] = found
        rows.append(
            [
                SHOWN[name],
                spread([f["first_forget"] for f in found], 3, 1),
                *("none" if f["first_ratio"] is None else f"{f['first_ratio']:.1f}" for f in found[:1]),
                spread([f["typical"] for f in found], 2, 1),
                spread([max(f["ratios"]) for f in found], 1, 1),
                spread([f["apart"] for f in found], 2, 1),
            ]
        )
    ours = [f["apart"] for f in figures["jensun"]]
    pairs = {SHOWN[n]: compared(ours, [f["apart"] for f in found]) for n, found in figures.items() if n != "jensun"}
    head = [
        "",
        "forget norm, step 1",
        "ratio, step 1, seed 0",
        f"ratio, steps 3 to {study.grid.steps}",
        "largest ratio",
        "apart, times",
    ]
    return {
        "figures": figures,
        "pairs": pairs,
        "conditions": {f"JensUn less apart: {pair}": found == "lower" for pair, found in pairs.items()},
        "table": markdown(head, rows),
    }


def _ends(study: Study, grid: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, list[Any]], float, list[list[str]]]:
    """JensUn at several settings with all seeds, at the rate that was chosen for it: ends of the courses, what the base
    retains, and rows of a table."""
    same = {"learning_rate": tuned(study)["rates"]["jensun"], "epochs": EPOCHS}
    base = of_base(study, study.final)
    ends = {
        label: [
            course(study, "jensun", study.final, {**same, **given, "seed": s}, or_every=EVERY)["final"] for s in SEEDS
        ]
        for label, given in grid.items()
    }
    rows = []
    for label, runs in {"base": [base], **ends}.items():
        rows.append([label, *(spread([run["forget"][figure] for run in runs]) for figure in ("any", "wordings"))])
        rows[-1] += [spread([run["retain"][figure] for run in runs]) for figure in ("original", "wordings")]
        rows[-1].append(spread([run["retain"]["wordings"] / base["retain"]["wordings"] for run in runs], 0))
    return ends, base["retain"]["wordings"], rows


_ENDS = ["leaked, any wording", "leaked, mean", "retained, original", "retained, wordings", "of the base's"]


def knob(study: Study) -> Result:
    grid = {f"{w:g}": {"retain_weight": w, "forget_weight": round(1 - w, 6)} for w in study.grid.weights}
    ends, _, rows = _ends(study, grid)
    runs = [(float(label), run) for label, found in ends.items() for run in found]
    weights = [weight for weight, _ in runs]
    trends = {
        "leaked": trend(weights, [run["forget"]["wordings"] for _, run in runs])._asdict(),
        "retained": trend(weights, [run["retain"]["wordings"] for _, run in runs])._asdict(),
    }
    told = "\n".join(f"{name}: rho {t['rho']:.2f}, one-sided p {t['p']:.2g}" for name, t in trends.items())
    return {
        "figures": ends,
        "trends": trends,
        "conditions": {f"{name} rises with it": t["rho"] > 0 and t["p"] <= ALPHA for name, t in trends.items()},
        "table": markdown(["retain_weight, %", *_ENDS], rows) + "\n\n" + told,
    }


def longer(study: Study) -> Result:
    ends, base, rows = _ends(study, {f"{times}x": {"epochs": EPOCHS * times} for times in study.grid.times})
    conditions = {}
    for label in [f"{times}x" for times in study.grid.times if times > 1]:
        leaked = max(run["forget"]["any"] for run in ends[label])
        retained = min(run["retain"]["wordings"] for run in ends[label]) / base
        conditions[f"{label}: at most {MOST_LEAKED:.0%} leaked in every seed"] = leaked <= MOST_LEAKED
        conditions[f"{label}: at least {LEAST_RETAINED:.0%} retained in every seed"] = retained >= LEAST_RETAINED
    return {"figures": ends, "conditions": conditions, "table": markdown(["epochs, %", *_ENDS], rows)}


CLAIMS: Mapping[str, Callable[[Study], Result]] = {
    "worst": worst,
    "course": steadier,
    "balance": balanced,
    "knob": knob,
    "longer": longer,
}


def grid_of(given: argparse.Namespace) -> Grid:
    """From the options, each as typed; values of a list are put in order."""

    def several(text: str, kind: Callable[[str], Any]) -> tuple[Any, ...]:
        return tuple(sorted({kind(part) for part in text.split(",")}))

    return Grid(
        rates=several(given.rates, float),
        contrasts=tuple(given.contrasts.split(",")),
        steps=int(given.steps),
        weights=several(given.weights, float),
        times=several(given.times, int),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "claims", nargs="+", choices=[*CLAIMS, "all"], metavar="CLAIM", help=", ".join([*CLAIMS, "all"])
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of the organism's base")
    parser.add_argument("--out", type=Path, required=True, help="folder for what is trained and measured")
    parser.add_argument("--task", default="lkf")
    for name, value in Grid()._asdict().items():
        kind = type(value[0]) if isinstance(value, tuple) else type(value)
        told = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        parser.add_argument(f"--{name}", default=told, metavar=kind.__name__, help=f"default: {told}")
    given = parser.parse_args()
    import torch

    from jensun_ref.folders import write_json

    torch.set_num_threads(1)
    study = open_study(given.model, given.task, given.out, grid_of(given))
    given.out.mkdir(parents=True, exist_ok=True)
    for name in CLAIMS if "all" in given.claims else given.claims:
        found = CLAIMS[name](study)
        found.setdefault("verdict", verdict_of(list(found["conditions"].values())))
        where = {
            "base": study.fingerprint,
            "task": study.task.content_hash,
            "seeds": SEEDS,
            "grid": study.grid._asdict(),
        }
        write_json(given.out / f"{name}.json", {"claim": name, **where, **found})
        print(f"\n{name}: {found['verdict']}\n\n{found['table']}\n")
        for condition, met in found["conditions"].items():
            print(f"- {condition}: {'yes' if met else 'no'}")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
