"""Ways of unlearning, by name; what one is stands in `contract`."""

from __future__ import annotations

from collections.abc import Mapping

from audit.errors import TrainingError
from audit.plugins import Registry
from jensun_ref.methods.contract import NEEDS, Context, Method, MethodSettings, Need

__all__ = ["METHODS", "NEEDS", "REGISTRY", "Context", "Method", "MethodSettings", "Need", "method_class"]

#: Name of a built-in method -> where its class is.
METHODS: Mapping[str, str] = {
    "altpo": "jensun_ref.methods.altpo:AltPO",
    "bs_s": "jensun_ref.methods.bs_s:BootstrappedSequences",
    "bs_t": "jensun_ref.methods.bs_t:BootstrappedTokens",
    "dpo": "jensun_ref.methods.dpo:DPO",
    "grad_diff": "jensun_ref.methods.grad_diff:GradDiff",
    "gradient_ascent": "jensun_ref.methods.gradient_ascent:GradientAscent",
    "idk": "jensun_ref.methods.idk:IDK",
    "idk_ap": "jensun_ref.methods.idk_ap:IDKAP",
    "jensun": "jensun_ref.methods.jensun:JensUn",
    "jensun_plus": "jensun_ref.methods.jensun_plus:JensUnPlus",
    "kl_min": "jensun_ref.methods.kl_min:KLMin",
    "llmu": "jensun_ref.methods.llmu:LLMU",
    "me_gd": "jensun_ref.methods.me_gd:MEGD",
    "ngdiff": "jensun_ref.methods.ngdiff:NGDiff",
    "noop": "jensun_ref.methods.noop:NoOp",
    "npo": "jensun_ref.methods.npo:NPO",
    "refuse_all": "jensun_ref.methods.refuse_all:RefuseAll",
    "rmu": "jensun_ref.methods.rmu:RMU",
    "satimp": "jensun_ref.methods.satimp:SatImp",
    "simnpo": "jensun_ref.methods.simnpo:SimNPO",
    "task_vector": "jensun_ref.methods.task_vector:TaskVector",
    "undial": "jensun_ref.methods.undial:UNDIAL",
    "undo": "jensun_ref.methods.undo:UNDO",
    "wga": "jensun_ref.methods.wga:WGA",
}

REGISTRY = Registry("method", METHODS, "audit.methods", TrainingError)


def method_class(name: str) -> type[Method]:
    """The class of a method. Raises TrainingError for an unknown name, with the nearest known ones, and for a class
    that is no Method or declares what does not exist."""
    found = REGISTRY.get(name)
    where = f"the method '{name}' ({REGISTRY.target(name)}, {REGISTRY.origin(name)})"
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise TrainingError(f"{where} is no subclass of jensun_ref.methods.Method")
    missing = [attribute for attribute in ("name", "summary", "source") if not getattr(found, attribute, "")]
    if missing:
        raise TrainingError(f"{where} does not say its {', '.join(missing)}")
    unknown = sorted(set(found.needs) - set(NEEDS))
    if unknown:
        raise TrainingError(f"{where} needs {', '.join(unknown)}", hint=f"there are: {', '.join(NEEDS)}")
    return found
