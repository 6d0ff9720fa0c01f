"""The vLLM engine, inside this process: requests go in together, answers come out as they finish."""

from __future__ import annotations

import gc
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from audit.engines.checkpoint import Checkpoint, first_line
from audit.engines.render import Detokenizer
from audit.engines.settings import EngineSettings
from audit.engines.swapping import Loaded, check_finite
from audit.engines.vllm_setup import (
    adapter_rank,
    check_single_set,
    engine_arguments,
    identity,
    in_process,
    platform_device,
    prepare_environment,
    start,
)
from audit.engines.vllm_worker import count_nans_quickly, renew_output_layer
from audit.errors import EngineError, ModelError
from audit.types import Completion, Decoding, LogProb, Request

__all__ = ["VLLMEngine", "capabilities", "identity", "platform_device"]

CAPABILITIES = frozenset({"chat", "raw", "prefill", "sampling", "logprobs", "weights"})
#: Requests handed over together. vLLM schedules them itself; an interrupted audit loses at most these.
BATCH_REQUESTS = 2048


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
        self._settings = settings
        self._lora: Any = None
        self._adapters = itertools.count(1)
        arguments = engine_arguments(checkpoint, settings)
        self._max_rank = int(arguments.get("max_lora_rank", 0))
        prepare_environment(arguments)
        self._engine: Any = engine if engine is not None else start(arguments)
        self._watch_for_nans()
        if in_process():
            self._engine.collective_rpc(count_nans_quickly)
        try:
            self._use_adapter(checkpoint)
            checkpoint.check_unchanged()
            self._loaded = Loaded(checkpoint)
        except BaseException:
            self.close()
            raise

    def _watch_for_nans(self) -> None:
        """Notes the requests for which vLLM counted NaN logits: its public outputs do not tell."""
        core = self._engine.engine_core
        get_output = core.get_output

        def watched() -> Any:
            outputs = get_output()
            self._broken.update(output.request_id for output in outputs.outputs if output.num_nans_in_logits)
            return outputs

        core.get_output = watched

    @property
    def context_length(self) -> int:
        """Tokens of prompt and answer together that this engine has memory for. A scored text counts as a prompt with
        an answer of one token."""
        self._check_open()
        return int(self._engine.model_config.max_model_len)

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

        self._check_open()
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
        self._check_open()
        if any(not prompt or not continuation for prompt, continuation in pairs):
            raise ValueError("a prompt and a continuation need at least one token each")
        # where adapters can be served, vLLM 0.32 mixes up the prompt positions of requests that are scored together
        size = 1 if self._max_rank else max(len(pairs), 1)
        return [found for start in range(0, len(pairs), size) for found in self._score(pairs[start : start + size])]

    def _score(self, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[LogProb]:
        from vllm import SamplingParams
        from vllm.exceptions import VLLMError
        from vllm.sampling_params import RequestOutputKind

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

    def swap(self, checkpoint: Checkpoint) -> None:
        """Takes the weights, or the adapter, of another checkpoint of the same architecture and tokenizer, in place.

        Far quicker than a new engine. ModelError unless every tensor has its counterpart and is finite, so that nothing
        of the old weights can stay; the engine is closed where something fails once the change has begun. An engine
        that was opened with an adapter takes others up to its rank, and none; one that was opened without takes none.
        """
        self._check_open()
        if identity(checkpoint, self._settings) != self.identity:
            raise ModelError(f"{checkpoint.source} is computed in another type than {self.checkpoint.source}")
        loaded = self._loaded
        loaded.check(checkpoint)
        check_single_set(checkpoint)
        if not in_process():
            raise EngineError("weights can only be swapped in an engine of one process", hint="open a new engine")
        if self._engine.has_unfinished_requests():
            raise EngineError("weights cannot be swapped while requests are being answered")
        if checkpoint.adapter is not None and checkpoint.adapter_weights is not None:
            rank = adapter_rank(checkpoint.adapter)
            if rank > self._max_rank:
                raise ModelError(f"the engine was opened for adapters up to rank {self._max_rank}, not {rank}")
            check_finite((checkpoint.adapter_weights,))
        if not loaded.same_base(checkpoint):
            check_finite(checkpoint.weight_files)
        try:
            if not loaded.same_base(checkpoint):
                self._reload(checkpoint)
            self._use_adapter(checkpoint)
            checkpoint.check_unchanged()
            self._loaded, self._detokenizer = Loaded(checkpoint), Detokenizer(checkpoint)
        except BaseException:
            self.close()
            raise
        self.checkpoint = checkpoint

    def _reload(self, checkpoint: Checkpoint) -> None:
        """The base weights; whatever was computed with the former ones is dropped."""
        try:
            self._engine.collective_rpc("reload_weights", kwargs={"weights_path": str(checkpoint.path)})
            renewed = all(self._engine.collective_rpc(renew_output_layer))
        except (RuntimeError, ValueError, KeyError, AttributeError, OSError) as error:
            raise ModelError(f"vLLM cannot take the weights in {checkpoint.path}: {first_line(error)}") from error
        if not renewed:
            raise EngineError("vLLM keeps the former output layer", hint="open a new engine")
        if not self._engine.reset_prefix_cache():
            raise EngineError("vLLM keeps computed prompts of the former weights", hint="open a new engine")

    def _use_adapter(self, checkpoint: Checkpoint) -> None:
        """Loads the adapter now, so that a bad one shows, under a name that was never used in this engine.

        vLLM files computed prompts by the adapter's name and path: under a fresh name none of another adapter is found.
        """
        self._lora = None
        if checkpoint.adapter is None:
            return
        from vllm.exceptions import VLLMError
        from vllm.lora.request import LoRARequest

        number = next(self._adapters)
        request = LoRARequest(f"adapter-{number}", number, str(checkpoint.adapter))
        try:
            self._engine.add_lora(request)
            held = self._engine.list_loras()
        except (VLLMError, RuntimeError, ValueError, KeyError, OSError) as error:
            raise ModelError(f"vLLM cannot take the adapter {checkpoint.adapter}: {first_line(error)}") from error
        if number not in held:
            raise EngineError(f"vLLM does not hold the adapter {checkpoint.adapter}", hint="--engine hf")
        self._lora = request

    def _check_open(self) -> None:
        if self._engine is None:
            raise EngineError("the engine is closed")

    def close(self) -> None:
        """Stops the engine and frees its memory; another one can be opened in this process afterwards."""
        if self._engine is None:
            return
        from vllm.distributed import cleanup_dist_env_and_memory

        self._engine.engine_core.shutdown()
        self._engine = None
        gc.collect()
        cleanup_dist_env_and_memory()


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
