"""What runs where vLLM keeps its model: functions handed to its workers."""

from __future__ import annotations

from typing import Any


def count_nans_quickly(worker: Any) -> None:
    """Runs where the model is: looks at each row's largest logit, in which NaN and infinity show.

    vLLM's own count goes over every logit three times, which on a CPU is a twentieth of the whole decoding.
    """
    import torch

    runner = worker.model_runner

    def broken_rows(logits: Any) -> dict[str, int]:
        if logits is None:
            return {}
        finite = torch.isfinite(logits.amax(dim=-1))
        if bool(finite.all()):
            return {}
        flags = finite.tolist()
        places = runner.input_batch.req_id_to_index.items()
        return {name: 1 for name, place in places if place < len(flags) and not flags[place]}

    if hasattr(runner, "_get_nans_in_logits"):
        runner._get_nans_in_logits = broken_rows


def renew_output_layer(worker: Any) -> bool:
    """Runs where the model is: packs a tied output layer anew, and says whether it now computes with the new weights.

    On a CPU vLLM computes with a packed copy of the output layer. Where it is tied to the input embedding, a reload
    brings no weights of its own for it, and the copy of the former model stays in use.
    """
    import torch

    for module in worker.get_model().modules():
        weight = getattr(module, "weight", None)
        if not hasattr(module, "cpu_linear") or type(module).__name__ != "ParallelLMHead" or weight is None:
            continue
        module.quant_method.process_weights_after_loading(module)
        generator = torch.Generator().manual_seed(0)
        state = torch.randn(4, weight.shape[1], generator=generator).to(weight.dtype)
        computed, wanted = module.quant_method.apply(module, state, None), state @ weight.t()
        if not torch.allclose(computed.float(), wanted.float(), rtol=0.02, atol=0.02 * float(wanted.abs().max())):
            return False
    return True
