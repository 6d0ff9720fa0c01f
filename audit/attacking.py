"""Attacks on the weights in the flow: altered states are made, audited as subjects of the run, and named.

Subjects are the outer loop of an audit, and an altered state is a subject like the others; it is only made first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from audit.asking import Asked
from audit.attacks.probes import attack_plan
from audit.attacks.records import Failure
from audit.config import AuditConfig
from audit.errors import AuditError, ConfigError, EngineError, ModelError, TrainingError
from audit.probes import get_family
from audit.probes.plan import Plan
from audit.progress import Progress
from audit.protocols import Engine
from audit.subjects import Models, Opened, open_local
from audit.tasks import Task
from audit.types import Role, Subject

if TYPE_CHECKING:
    from audit.attacks.contract import Altered, Attack, AttackContext
    from audit.engines.checkpoint import Checkpoint
    from audit.engines.warm import WarmEngine

#: Audits one opened subject on the probes of a plan.
AuditSubject = Callable[[Opened, Plan], Asked]

_BLIND = (
    "altered weights are asked no retained facts: a model that an attack only wrecked cannot be told from one that "
    "gives nothing, so that an attack without leaks shows little; give facts to keep with --retain"
)


@dataclass
class Attacked:
    """What became of the attacks of a run."""

    results: list[Asked] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True)
class Planned:
    """Attacks that were checked and can be carried out."""

    attacks: tuple[Attack, ...]
    ctx: AttackContext
    models: Models
    keeps: bool = True
    """Altered states are asked retained facts too."""

    @property
    def warnings(self) -> tuple[str, ...]:
        said = tuple(f"{attack.name}: {warning}" for attack in self.attacks for warning in attack.warnings)
        return said if self.keeps else (*said, _BLIND)

    def states(self) -> int:
        """Altered states of all models: one a looked-at step of a fine-tuning, one of everything else."""
        return sum(max(1, len(attack.steps) - 1) * len(self.arms(attack)) for attack in self.attacks)

    def arms(self, attack: Attack) -> list[Role]:
        """The models of the run that the attack is carried out on."""
        return [arm for arm in attack.arms if arm in self.models.checkpoints and arm in self.ctx.config.arms]


def plan_attacks(
    config: AuditConfig, task: Task, plan: Plan, models: Models | None, progress: Progress
) -> Planned | None:
    """The attacks that the configuration names, None for none. Raises AuditError for one that cannot be carried out."""
    if not config.attacks or models is None:
        return None
    for family in config.attack.families:
        get_family(family)  # refuses a name that no family has
    if not any(probe.split == "forget" for probe in attack_plan(config, plan).probes):
        raise ConfigError(
            f"altered weights would be asked nothing: no greedy probes of {', '.join(config.attack.families)} "
            "in the direct form",
            hint="--family original --family paraphrase, or name the run's own under attack.families",
        )
    from audit.attacks.contract import AttackContext
    from audit.attacks.lora import merging
    from audit.attacks.spec import make_attacks
    from audit.attacks.workshop import Workshop
    from audit.engines.hf import resolve_device
    from audit.store import cache_folder

    for checkpoint in models.checkpoints.values():
        if checkpoint.adapter is not None:
            merging(checkpoint)  # refuses an adapter that cannot be merged into its model, which comes first
    ctx = AttackContext(
        task=task,
        config=config.attack,
        workshop=Workshop(cache_folder() / "altered", keep=config.attack.keep_weights),
        checkpoints=models.checkpoints,
        device=resolve_device(models.settings),
        seed=config.seed,
        progress=progress,
    )
    attacks = tuple(make_attacks(config.attacks, ctx))
    most = config.attack.budget_steps
    for attack in attacks:
        if most is not None and attack.steps and attack.steps[1] > most:
            raise ConfigError(
                f"{attack.name}: nothing is looked at within attack.budget_steps {most}: its first step is "
                f"{attack.steps[1]}",
                hint="raise the budget, or add an earlier step",
            )
    keeps = any(probe.split == "retain" for probe in attack_plan(config, plan).probes)
    return Planned(attacks, ctx, models, keeps)


def run_attacks(
    config: AuditConfig, planned: Planned, plan: Plan, audit: AuditSubject, *, exclusive_judge: bool
) -> Attacked:
    """Carry the attacks out on every model that they are meant for and audit what they give.

    An attack that cannot be carried through is a Failure, and the others go on. `exclusive_judge`: a judge needs the
    device for itself, so that no engine may stay open while it rules.
    """
    from audit.engines.warm import WarmEngine

    attacked = Attacked()
    merged: dict[Role, Altered] = {}
    warm = WarmEngine(planned.models.settings, keep=not exclusive_judge)
    try:
        for attack in planned.attacks:
            probes = attack_plan(config, plan, attack.facts)
            for arm in planned.arms(attack):
                if attack.kind == "relearn" and not planned.ctx.device.startswith("cpu"):
                    warm.close()  # a fine-tuning needs the device's memory
                states, why = _altered(attack, arm, planned, merged)
                try:
                    for altered in states:
                        opened = _opened(attack, arm, altered, planned.models, warm)
                        attacked.results.append(audit(opened, probes))
                        altered.clear()
                except (ModelError, EngineError) as error:
                    why = why or _said(error)
                if why:
                    planned.ctx.progress.note(f"{arm}: {attack.name} failed: {why}")
                    attacked.failures.append(Failure(attack=attack.name, arm=arm, puts_back=attack.puts_back, why=why))
    finally:
        warm.close()
        for made in merged.values():
            made.clear()
    return attacked


def _altered(attack: Attack, arm: Role, planned: Planned, merged: dict[Role, Altered]) -> tuple[list[Altered], str]:
    """All states first, audits afterwards: training and an engine need not share the device. And why they end early,
    if they do: the states before a failure are audited all the same."""
    states: list[Altered] = []
    try:
        source = _plain(attack, arm, planned, merged)
        for altered in attack.apply(source, arm, planned.ctx):
            states.append(altered)
    except (TrainingError, ModelError, EngineError) as error:
        return states, _said(error)
    names = [state.recipe.get("step") for state in states]
    return (states, "") if len(set(names)) == len(names) else ([], f"{attack.name} gives two states of one name")


def _said(error: AuditError) -> str:
    return f"{error} ({error.hint})" if error.hint else str(error)


def _plain(attack: Attack, arm: Role, planned: Planned, merged: dict[Role, Altered]) -> Checkpoint:
    """The model that is altered: an adapter is merged into it first, which is what `merge` itself looks at."""
    from audit.attacks.perturb import merged as merging

    source = planned.models.checkpoints[arm]
    if source.adapter is None or attack.kind == "merge":
        return source
    if arm not in merged:
        merged[arm] = merging(source, planned.ctx)
    return merged[arm].make()


def _opened(attack: Attack, arm: Role, altered: Altered, models: Models, warm: WarmEngine) -> Opened:
    step = altered.recipe.get("step")
    subject = Subject(
        id=f"{arm}+{attack.name}" + ("" if step is None else f"@{step}"),
        role="attacked",
        source=f"{models.checkpoints[arm].source} after {attack.name}",
        fingerprint=altered.checkpoint.fingerprint,
        parent=arm,
        recipe={
            **altered.recipe,
            "attack": attack.name,
            "kind": attack.kind,
            "puts_back": attack.puts_back,
            **({} if attack.facts is None else {"audited": sorted(attack.facts)}),
        },
    )
    return open_local(
        subject,
        altered.checkpoint,
        models.checkpoints.get("base"),
        models.settings,
        partial(_serve, warm, altered),
    )


def _serve(warm: WarmEngine, altered: Altered) -> Engine:
    return warm.serve(altered.make())
