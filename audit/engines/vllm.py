"""The vLLM engine, inside this process: requests go in together, answers come out as they finish."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import gc
import importlib.metadata
import itertools
import json
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

from audit.engines.checkpoint import Checkpoint, first_line
from audit.engines.render import Detokenizer
from audit.engines.settings import EngineSettings
from audit.engines.weights import read_json
from audit.errors import EngineError, ModelError
from audit.types import Completion, Decoding, LogProb, Request

CAPABILITIES = frozenset({"chat", "raw", "prefill", "sampling", "logprobs", "weights"})
#: Requests handed over together. vLLM schedules them itself; an interrupted audit loses at most these.
BATCH_REQUESTS = 2048
#: What the audit sets itself: changing it would change what is audited, or is said elsewhere.
RESERVED = {
    "model": "--model",
    "tokenizer": "--model",
    "dtype": "--dtype",
    "generation_config": "nothing: the audit decides how texts are drawn",
    "override_generation_config": "nothing: the audit decides how texts are drawn",
    "enable_lora": "--adapter",
    "max_lora_rank": "--adapter",
    "trust_remote_code": "--trust-remote-code",
}
_LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_CPU_CACHE_GIB = "1"
INSTALL = "make vllm"


def platform_device() -> str:
    """The kind of device the installed vLLM was built for: cpu, cuda … EngineError where there is no vLLM."""
    _environment({})
    try:
        from vllm.platforms import current_platform
    except ImportError as error:
        raise EngineError(f"vLLM is not installed or cannot be imported ({error})", hint=INSTALL) from error
    return str(current_platform.device_type)


def _environment(args: dict[str, Any]) -> None:
    """vLLM's switches, which it reads from the environment; what the user has set stays.

    One process where one suffices: an engine in a process of its own outlives an audit that is killed. Messages go to
    standard error, because standard output may be one JSON document. NaN logits are counted, because a model that
    computes nonsense must not look like one that has forgotten.
    """
    world = int(args.get("tensor_parallel_size", 1)) * int(args.get("pipeline_parallel_size", 1))
    if world * int(args.get("data_parallel_size", 1)) == 1:
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    for name, value in (
        ("VLLM_LOGGING_LEVEL", "ERROR"),
        ("VLLM_LOGGING_STREAM", "ext://sys.stderr"),
        ("VLLM_NO_USAGE_STATS", "1"),
        ("VLLM_CPU_KVCACHE_SPACE", _CPU_CACHE_GIB),
    ):
        os.environ.setdefault(name, value)
    os.environ["VLLM_COMPUTE_NANS_IN_LOGITS"] = "1"


def _version() -> str:
    for name in ("vllm", "vllm-cpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return f"{importlib.metadata.version(name)}"
    raise EngineError("vLLM is not installed", hint=INSTALL)


def _device(settings: EngineSettings) -> str:
    device = platform_device()
    if settings.device != "auto" and settings.device.split(":")[0] != device:
        raise EngineError(
            f"the installed vLLM is built for {device}, not for {settings.device}",
            hint=f"--device {device}, or {INSTALL} on a machine that has one",
        )
    return device


def _dtype(checkpoint: Checkpoint, settings: EngineSettings, device: str) -> str:
    from audit.engines.hf import resolve_dtype

    return resolve_dtype(checkpoint, settings, device)


def identity(checkpoint: Checkpoint, settings: EngineSettings) -> str:
    """Name, version, device, dtype and arguments; loads no weights."""
    version, device = _version(), _device(settings)
    return " ".join(
        [
            "vllm",
            f"vllm={version}",
            f"torch={importlib.metadata.version('torch')}",
            f"device={device}",
            f"dtype={_dtype(checkpoint, settings, device)}",
            *(f"{key}={value}" for key, value in sorted(settings.args.items())),
        ]
    )


def capabilities(settings: EngineSettings) -> frozenset[str]:
    """What the engine can do, whatever the settings."""
    return CAPABILITIES


class VLLMEngine:
    """Decodes with vLLM; prompts that share a beginning share its computation."""

    capabilities = CAPABILITIES
    whole_batches = False

    def __init__(self, checkpoint: Checkpoint, settings: EngineSettings, engine: Any = None) -> None:
        """Loads the weights. Raises EngineError where vLLM is missing or refuses the arguments.

        `engine` is a vLLM engine that has them in memory already.
        """
        self.identity = identity(checkpoint, settings)
        self.checkpoint = checkpoint
        self._detokenizer = Detokenizer(checkpoint)
        self._numbers = itertools.count()
        self._broken: set[str] = set()
        self._lora: Any = None
        arguments = _arguments(checkpoint, settings)
        _environment(arguments)
        self._engine: Any = engine if engine is not None else _start(arguments)
        self._watch_for_nans()
        if _in_process():
            self._engine.collective_rpc(_count_nans_quickly)
        checkpoint.check_unchanged()
        if checkpoint.adapter is not None:
            from vllm.lora.request import LoRARequest

            self._lora = LoRARequest("adapter", 1, str(checkpoint.adapter))

    def _watch_for_nans(self) -> None:
        """Notes the requests for which vLLM counted NaN logits: its public outputs do not tell."""
        core = self._engine.engine_core
        get_output = core.get_output

        def watched() -> Any:
            outputs = get_output()
            self._broken.update(output.request_id for output in outputs.outputs if output.num_nans_in_logits)
            return outputs

        core.get_output = watched

    def plan(self, requests: Sequence[Request]) -> list[list[Request]]:
        """Batches of requests in the order of their token ids, so that equal beginnings are neighbours."""
        ordered = sorted(requests, key=lambda request: (request.token_ids or (), request.key, request.sample))
        return [ordered[start : start + BATCH_REQUESTS] for start in range(0, len(ordered), BATCH_REQUESTS)]

    def generate(self, batch: Sequence[Request]) -> Iterator[Completion]:
        """One completion a request, as they finish. What vLLM refuses or breaks off is a completion with an error.

        An interrupted batch is taken back from vLLM, so that the engine can go on with another.
        """
        from vllm.exceptions import VLLMError
        from vllm.v1.engine.exceptions import EngineDeadError

        waiting: dict[str, tuple[str, Request]] = {}  # our number -> vLLM's own name of it, request
        greedy: dict[Decoding, Any] = {}
        try:
            for request in batch:
                number = f"r{next(self._numbers)}"
                try:
                    if request.decoding.temperature > 0:
                        params = self._params(request)
                    elif (params := greedy.get(request.decoding)) is None:
                        params = greedy[request.decoding] = self._params(request)
                    prompt = {"prompt_token_ids": list(request.token_ids or ())}
                    name = self._engine.add_request(number, prompt, params, lora_request=self._lora)
                    waiting[number] = (str(name), request)
                except (VLLMError, ValueError, TypeError) as error:
                    yield _failed(request, first_line(error))
            while waiting:
                for output in self._engine.step():
                    if output.finished and output.request_id in waiting:
                        name, request = waiting.pop(output.request_id)
                        yield self._completion(request, output, broken=name in self._broken)
        except EngineDeadError as error:
            waiting.clear()
            raise EngineError(f"vLLM stopped: {first_line(error)}") from error
        except (VLLMError, RuntimeError, ValueError, IndexError, AssertionError) as error:
            left = list(waiting.values())
            self._abort(waiting)
            for _, request in left:
                yield _failed(request, first_line(error))
        finally:
            self._abort(waiting)
            self._broken.clear()

    def _params(self, request: Request) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        decoding = request.decoding
        return SamplingParams(
            max_tokens=decoding.max_new_tokens,
            temperature=decoding.temperature,
            top_p=decoding.top_p if decoding.temperature > 0 else 1.0,
            seed=request.seed if decoding.temperature > 0 else None,
            stop=list(decoding.stop) or None,
            ignore_eos=True,  # or vLLM adds what generation_config.json declares; ours are in stop_token_ids
            stop_token_ids=list(self.checkpoint.eos_ids),
            detokenize=bool(decoding.stop),
            skip_special_tokens=True,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )

    def _completion(self, request: Request, output: Any, *, broken: bool) -> Completion:
        (result,) = output.outputs
        if broken:
            return _failed(request, "the model gives non-finite logits")
        if result.finish_reason not in ("stop", "length"):
            return _failed(request, f"vLLM ended the request: {result.finish_reason}")
        if result.finish_reason == "length" and len(result.token_ids) < request.decoding.max_new_tokens:
            limit = self._engine.model_config.max_model_len
            return _failed(
                request, f"PromptError: prompt and answer exceed the {limit} tokens that vLLM has memory for"
            )
        return Completion(
            key=request.key,
            text=self._detokenizer.text(result.token_ids, request.decoding.stop),
            finish="stop" if result.finish_reason == "stop" else "length",
            n_prompt=len(request.token_ids or ()),
            n_new=len(result.token_ids),
        )

    def _abort(self, waiting: dict[str, tuple[str, Request]]) -> None:
        if waiting and self._engine is not None:
            self._engine.abort_request([name for name, _ in waiting.values()], internal=True)
        waiting.clear()

    def score(self, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[LogProb]:
        """Natural-log probabilities of continuations, from the log-probabilities vLLM gives for prompt tokens."""
        from vllm import SamplingParams
        from vllm.exceptions import VLLMError
        from vllm.sampling_params import RequestOutputKind

        if any(not prompt or not continuation for prompt, continuation in pairs):
            raise ValueError("a prompt and a continuation need at least one token each")
        params = SamplingParams(
            max_tokens=1,
            temperature=0.0,
            prompt_logprobs=0,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        places: dict[str, int] = {}
        names: list[str] = []
        found: dict[int, LogProb] = {}
        try:
            for place, (prompt, continuation) in enumerate(pairs):
                number = f"s{next(self._numbers)}"
                ids = {"prompt_token_ids": list(prompt + continuation)}
                names.append(str(self._engine.add_request(number, ids, params, lora_request=self._lora)))
                places[number] = place
            while len(found) < len(pairs):
                for output in self._engine.step():
                    if output.finished and output.request_id in places:
                        place = places[output.request_id]
                        found[place] = _log_prob(output.prompt_logprobs, pairs[place][1])
        except (VLLMError, ValueError, RuntimeError) as error:
            raise EngineError(f"vLLM cannot score: {first_line(error)}") from error
        finally:
            if len(found) < len(pairs):
                self._engine.abort_request(names, internal=True)
            self._broken.clear()
        return [found[place] for place in range(len(pairs))]

    def swap_weights(self, checkpoint: Checkpoint) -> None:
        """Takes the weights of another checkpoint of the same architecture and tokenizer, in place.

        Far quicker than a new engine; ModelError unless every tensor has its counterpart, so that nothing of the old
        weights can stay.
        """
        here, there = self.checkpoint, checkpoint
        if here.adapter is not None or there.adapter is not None:
            raise ModelError("weights cannot be swapped under an adapter")
        if here.config_fingerprint != there.config_fingerprint:
            raise ModelError(f"{there.source} has another configuration than {here.source}")
        shapes = [{(t.name, t.dtype, t.shape) for t in each.tensors} for each in (here, there)]
        if shapes[0] != shapes[1]:
            raise ModelError(f"{there.source} has other tensors than {here.source}")
        _check_single_set(there)
        if not _in_process():
            raise EngineError("weights can only be swapped in an engine of one process", hint="open a new engine")
        self._engine.collective_rpc("reload_weights", kwargs={"weights_path": str(there.path)})
        if not all(self._engine.collective_rpc(_renew_output_layer)):
            raise EngineError("vLLM keeps the former output layer", hint="open a new engine")
        there.check_unchanged()
        if not self._engine.reset_prefix_cache():
            raise EngineError("vLLM keeps computed prompts of the former weights", hint="open a new engine")
        self.checkpoint = there
        self._detokenizer = Detokenizer(there)

    def close(self) -> None:
        """Stops the engine and frees its memory; another one can be opened in this process afterwards."""
        if self._engine is None:
            return
        from vllm.distributed import cleanup_dist_env_and_memory

        self._engine.engine_core.shutdown()
        self._engine = None
        gc.collect()
        cleanup_dist_env_and_memory()


def _in_process() -> bool:
    return os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING") == "0"


def _count_nans_quickly(worker: Any) -> None:
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


def _renew_output_layer(worker: Any) -> bool:
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


def _failed(request: Request, error: str) -> Completion:
    n_prompt = len(request.token_ids or ())
    return Completion(key=request.key, text="", finish="error", n_prompt=n_prompt, n_new=0, error=error)


def _log_prob(table: Sequence[Any], continuation: tuple[int, ...]) -> LogProb:
    """From vLLM's table (one dict of token id -> log-probability and rank a prompt token) to the continuation's."""
    entries = [row[token] for row, token in zip(table[-len(continuation) :], continuation, strict=True)]
    values = tuple(float(entry.logprob) for entry in entries)
    if any(math.isnan(value) for value in values):
        raise ModelError("the model gives non-finite logits")
    return LogProb(token_logprobs=values, greedy=all(entry.rank == 1 for entry in entries))


def _arguments(checkpoint: Checkpoint, settings: EngineSettings) -> dict[str, Any]:
    """Arguments of vLLM's engine: ours, then the user's; objects are written as JSON."""
    device = _device(settings)
    for name in settings.args:
        if name in RESERVED:
            raise EngineError(f"the engine argument {name!r} is the audit's own", hint=f"use {RESERVED[name]}")
    _check_single_set(checkpoint)
    arguments: dict[str, Any] = {
        "model": str(checkpoint.path),
        "dtype": _dtype(checkpoint, settings, device),
        "generation_config": "vllm",  # the checkpoint's own settings must not act
        "trust_remote_code": checkpoint.trust_remote_code,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
        "max_model_len": -1,  # the checkpoint's context, or what of it fits into memory
    }
    if device == "cpu":
        arguments["enforce_eager"] = True
        arguments["kv_cache_memory_bytes"] = int(os.environ["VLLM_CPU_KVCACHE_SPACE"]) << 30
    if checkpoint.adapter is not None:
        rank = int(read_json(checkpoint.adapter / "adapter_config.json").get("r", 8))
        fitting = [allowed for allowed in _LORA_RANKS if allowed >= rank]
        if not fitting:
            raise EngineError(f"vLLM takes adapters up to rank {_LORA_RANKS[-1]}, not {rank}", hint="--engine hf")
        arguments |= {"enable_lora": True, "max_lora_rank": fitting[0]}
    for name, value in settings.args.items():
        arguments[name] = json.loads(value) if isinstance(value, str) and value.startswith(("{", "[")) else value
    return arguments


def _check_single_set(checkpoint: Checkpoint) -> None:
    """vLLM reads every safetensors file of a folder without an index: there must be none but the fingerprinted ones."""
    if len(checkpoint.weight_files) > 1:
        return
    known = {*checkpoint.weight_files, checkpoint.path / "adapter_model.safetensors"}
    stray = sorted(path.name for path in checkpoint.path.glob("*.safetensors") if path not in known)
    if stray:
        raise ModelError(
            f"{checkpoint.path} holds {stray[0]} beside {checkpoint.weight_files[0].name}, and vLLM would read both",
            hint="move it elsewhere, or use --engine hf",
        )


def _start(arguments: dict[str, Any]) -> Any:
    try:
        from vllm.engine.arg_utils import EngineArgs
        from vllm.exceptions import VLLMError
        from vllm.v1.engine.llm_engine import LLMEngine
    except ImportError as error:
        raise EngineError(f"vLLM is not installed or cannot be imported ({error})", hint=INSTALL) from error
    known = {field.name for field in dataclasses.fields(EngineArgs)}
    for name in arguments:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            raise EngineError(f"vLLM has no engine argument {name!r}", hint=f"did you mean {near[0]}?" if near else "")
    try:
        return LLMEngine.from_engine_args(EngineArgs(**arguments))
    except (VLLMError, ValueError, RuntimeError, OSError, TypeError, NotImplementedError) as error:
        raise EngineError(f"vLLM cannot start: {_reason(error)}", hint="--engine hf") from error


def _reason(error: Exception) -> str:
    """The telling line of an error: that of a validation error is its third."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("Value error", "Assertion failed", "Input should"))]
    return " ".join(telling[0].split())[:400] if telling else first_line(error)
