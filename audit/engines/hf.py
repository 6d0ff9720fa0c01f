"""The transformers engine: its own generate, in batches that are planned from the requests alone."""

from __future__ import annotations

import gc
import importlib.metadata
from collections.abc import Iterator, Sequence
from typing import Any

from audit.engines.checkpoint import Checkpoint, first_line
from audit.engines.decoding import Row, row_criterion, row_processor
from audit.engines.render import Detokenizer
from audit.engines.settings import EngineSettings
from audit.engines.swapping import Loaded, check_finite, take_adapter, take_weights, write
from audit.errors import EngineError, ModelError
from audit.quiet import no_loading_bars
from audit.types import Completion, LogProb, Request

CAPABILITIES = frozenset({"chat", "raw", "prefill", "sampling", "logprobs", "weights"})
ARGUMENTS = ("attn_implementation", "device_map")
#: Tokens (prompt and new) of a batch, by kind of device.
BATCH_TOKENS = {"cpu": 16_384, "cuda": 131_072}
#: New tokens after which rows that have ended leave the batch, even if they are fewer than half.
SEGMENT = 64
INSTALL = 'pip install "unlearning-audit[hf]"'


def resolve_device(settings: EngineSettings) -> str:
    """cpu, cuda or cuda:N. EngineError where CUDA is asked for and is not there."""
    try:
        import torch
    except ImportError as error:
        raise EngineError("torch is not installed", hint=INSTALL) from error
    if settings.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if settings.device.split(":")[0] not in ("cpu", "cuda"):
        raise EngineError(f"unknown device {settings.device!r}", hint="cpu, cuda or cuda:N")
    if settings.device.startswith("cuda") and not torch.cuda.is_available():
        raise EngineError("no CUDA device is available here", hint="--device cpu")
    return settings.device


def resolve_dtype(checkpoint: Checkpoint, settings: EngineSettings, device: str) -> str:
    """The type weights are computed in: the checkpoint's own, except that half precision on a CPU becomes float32."""
    if settings.dtype != "auto":
        if settings.dtype not in ("float32", "bfloat16", "float16"):
            raise EngineError(f"unknown dtype {settings.dtype!r}", hint="auto, float32, bfloat16 or float16")
        return settings.dtype
    return "float32" if device == "cpu" and checkpoint.dtype == "float16" else checkpoint.dtype


def batch_tokens(settings: EngineSettings, device: str) -> int:
    return settings.batch_tokens or BATCH_TOKENS[device.split(":")[0]]


def identity(checkpoint: Checkpoint, settings: EngineSettings) -> str:
    """Name, versions, device, dtype and arguments; needs no weights."""
    unknown = sorted(set(settings.args) - set(ARGUMENTS))
    if unknown:
        raise EngineError(f"the hf engine has no argument {unknown[0]!r}", hint=f"it has {', '.join(ARGUMENTS)}")
    device = resolve_device(settings)
    parts = [
        "hf",
        f"transformers={_version('transformers')}",
        f"torch={_version('torch')}",
        f"device={device.split(':')[0]}",
        f"dtype={resolve_dtype(checkpoint, settings, device)}",
        f"batch_tokens={batch_tokens(settings, device)}",
        *(f"{key}={value}" for key, value in sorted(settings.args.items())),
    ]
    return " ".join(parts)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise EngineError(f"{package} is not installed", hint=INSTALL) from error


def capabilities(settings: EngineSettings) -> frozenset[str]:
    """What the engine can do, whatever the settings."""
    return CAPABILITIES


class HFEngine:
    """Decodes with transformers on one device."""

    capabilities = CAPABILITIES
    whole_batches = True

    def __init__(self, checkpoint: Checkpoint, settings: EngineSettings, model: Any = None) -> None:
        """Loads the weights; `model` is a transformers model already in memory, used in place of those on disk."""
        self.identity = identity(checkpoint, settings)
        self.checkpoint = checkpoint
        self._device = resolve_device(settings)
        self._budget = batch_tokens(settings, self._device)
        self._detokenizer = Detokenizer(checkpoint)
        self._settings = settings
        self._model = model if model is not None else load_model(checkpoint, settings)
        self._loaded = Loaded(checkpoint) if model is None else None
        _blank_generation_config(self._model, checkpoint)

    def plan(self, requests: Sequence[Request]) -> list[list[Request]]:
        """Batches of like lengths under the token budget, the largest first so that a lack of memory shows early.

        The same set of requests gives the same batches in whatever order it comes.
        """
        ordered = sorted(requests, key=lambda r: (-r.decoding.max_new_tokens, -len(r.token_ids or ()), r.key, r.sample))
        batches: list[list[Request]] = []
        width = 0
        for request in ordered:
            size = len(request.token_ids or ()) + request.decoding.max_new_tokens
            if batches and (len(batches[-1]) + 1) * max(width, size) <= self._budget:
                batches[-1].append(request)
                width = max(width, size)
            else:
                batches.append([request])
                width = size
        return batches

    def generate(self, batch: Sequence[Request]) -> Iterator[Completion]:
        """One completion a request, as rows end. A batch that does not fit the device's memory is halved."""
        import torch

        checkpoint = self.checkpoint
        waiting = [[Row(request) for request in batch]]
        while waiting:
            self._check_open()
            rows = waiting.pop()
            open_rows = dict.fromkeys(range(len(rows)))
            try:
                for index in self._decode(rows):
                    if self.checkpoint is not checkpoint:
                        raise EngineError("the weights were changed while the batch was answered")
                    del open_rows[index]
                    yield self._completion(rows[index])
            except torch.OutOfMemoryError as error:
                left = [Row(rows[index].request) for index in open_rows]
                del rows
                gc.collect()
                torch.cuda.empty_cache()
                if len(left) == 1:
                    yield _failed(left[0].request, f"OutOfMemory: {first_line(error)}")
                else:
                    waiting += [left[len(left) // 2 :], left[: len(left) // 2]]
            except (RuntimeError, ValueError, IndexError) as error:
                for index in open_rows:
                    yield _failed(rows[index].request, first_line(error))

    def _decode(self, rows: list[Row]) -> Iterator[int]:
        """Runs rows to their ends; yields the place of each that has ended."""
        import torch
        from transformers import LogitsProcessorList, StoppingCriteriaList

        context = self.checkpoint.context_length
        live = []
        for place, row in enumerate(rows):
            if context is not None and len(row.prompt) + row.decoding.max_new_tokens > context:
                row.end = f"error: PromptError: prompt and answer exceed the context of {context} tokens"
                yield place
            else:
                live.append(place)
        ids, mask = self._pad([rows[place].prompt for place in live])
        cache = None
        while live:
            current = [rows[place] for place in live]
            with torch.inference_mode():
                out = self._model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    past_key_values=cache,
                    max_new_tokens=min(SEGMENT, max(row.left for row in current)),
                    do_sample=False,
                    return_dict_in_generate=True,
                    logits_processor=LogitsProcessorList([row_processor(current)]),
                    stopping_criteria=StoppingCriteriaList(
                        [row_criterion(current, self.checkpoint.eos_ids, self._detokenizer)]
                    ),
                )
                keep = [index for index, row in enumerate(current) if row.end is None]
                cache = out.past_key_values
                ids = out.sequences
                mask = torch.cat([mask, mask.new_ones(len(current), ids.shape[1] - mask.shape[1])], dim=1)
                if keep and len(keep) < len(current):
                    place = torch.tensor(keep, device=ids.device)
                    ids, mask = ids[place], mask[place]
                    cache.batch_select_indices(place)
            yield from (live[index] for index, row in enumerate(current) if row.end is not None)
            live = [live[index] for index in keep]

    def _pad(self, sequences: Sequence[Sequence[int]]) -> tuple[Any, Any]:
        """Left-padded ids and their mask, both (rows, longest). The mask is made here: pad may equal eos."""
        import torch

        longest = max((len(sequence) for sequence in sequences), default=0)
        ids = torch.full((len(sequences), longest), self.checkpoint.pad_id)
        mask = torch.zeros_like(ids)
        for index, sequence in enumerate(sequences):
            ids[index, longest - len(sequence) :] = torch.tensor(sequence)
            mask[index, longest - len(sequence) :] = 1
        return ids.to(self._model.device), mask.to(self._model.device)

    def _completion(self, row: Row) -> Completion:
        if row.end is None or row.end.startswith("error: "):
            return _failed(row.request, (row.end or "error: generation ended early").removeprefix("error: "))
        return Completion(
            key=row.request.key,
            text=self._detokenizer.text(row.new, row.decoding.stop),
            finish="stop" if row.end == "stop" else "length",
            n_prompt=len(row.prompt),
            n_new=len(row.new),
        )

    def score(self, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[LogProb]:
        """Natural-log probabilities of continuations; pairs of like lengths are computed together, fewer where memory
        does not suffice."""
        import torch

        self._check_open()
        results: list[LogProb | None] = [None] * len(pairs)
        order = sorted(range(len(pairs)), key=lambda i: (-len(pairs[i][0]) - len(pairs[i][1]), i))
        most = len(pairs)
        while order:
            width = len(pairs[order[0]][0]) + len(pairs[order[0]][1])
            count = max(1, min(len(order), most, self._budget // (4 * max(width, 1))))
            try:
                found = list(self._score([pairs[i] for i in order[:count]]))
            except torch.OutOfMemoryError as error:
                if count == 1:
                    raise EngineError(f"a text of {width} tokens cannot be scored: {first_line(error)}") from error
                most = count // 2
                gc.collect()
                torch.cuda.empty_cache()
                continue
            for index, result in zip(order[:count], found, strict=True):
                results[index] = result
            order = order[count:]
        return [result for result in results if result is not None]

    def _score(self, pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> Iterator[LogProb]:
        import torch

        if any(not prompt or not continuation for prompt, continuation in pairs):
            raise ValueError("a prompt and a continuation need at least one token each")
        ids, mask = self._pad([prompt + continuation for prompt, continuation in pairs])
        longest = max(len(continuation) for _, continuation in pairs)
        # nothing is predicted from the last token, and its place may lie beyond the context
        asked, seen = ids[:, :-1], mask[:, :-1]
        with torch.inference_mode():
            positions = (seen.cumsum(dim=1) - 1).clamp(min=0)
            logits = self._model(
                input_ids=asked, attention_mask=seen, position_ids=positions, logits_to_keep=longest, use_cache=False
            ).logits[:, -longest:]
            table = torch.log_softmax(logits.float(), dim=-1)
            targets = ids[:, -longest:]
            values = table.gather(2, targets[:, :, None]).squeeze(2).cpu()
            best = (table.argmax(dim=-1) == targets).cpu()
        for index, (_, continuation) in enumerate(pairs):
            own = values[index, longest - len(continuation) :]
            if bool(torch.isnan(own).any()):
                raise ModelError("the model gives non-finite logits")
            yield LogProb(
                token_logprobs=tuple(own.tolist()), greedy=bool(best[index, longest - len(continuation) :].all())
            )

    def swap(self, checkpoint: Checkpoint) -> None:
        """Takes weights and adapter of another checkpoint of the same architecture, types and tokenizer, in place.

        An adapter is exchanged for one of the same settings and shapes. ModelError, the former weights untouched,
        unless every tensor of the model has its counterpart in the files and all are finite; the engine is closed
        where something fails after that.
        """
        self._check_open()
        if self._loaded is None:
            raise EngineError("a model that was handed over in memory cannot be exchanged", hint="open a new engine")
        if identity(checkpoint, self._settings) != self.identity:
            raise ModelError(f"{checkpoint.source} is computed in another type than {self.checkpoint.source}")
        loaded, files = self._loaded, checkpoint.weight_files
        loaded.check(checkpoint)
        if (loaded.adapter is None) != (checkpoint.adapter is None):
            raise ModelError("an adapter is only put on or taken off in a new engine")
        changes = []
        if not loaded.same_base(checkpoint):
            changes.append((take_weights(self._model, files), files))
        if loaded.adapter is not None and checkpoint.adapter_weights is not None:
            adapter = (checkpoint.adapter_weights,)
            changes.append((take_adapter(self._model, loaded.adapter, checkpoint), adapter))
        for _, changed in changes:
            check_finite(changed)
        try:
            for pairs, changed in changes:
                write(pairs, changed)
            checkpoint.check_unchanged()
            _blank_generation_config(self._model, checkpoint)
            self._loaded, self._detokenizer = Loaded(checkpoint), Detokenizer(checkpoint)
        except BaseException:
            self.close()
            raise
        self.checkpoint = checkpoint

    def _check_open(self) -> None:
        if self._model is None:
            raise EngineError("the engine is closed")

    def close(self) -> None:
        """Frees the weights."""
        self._model = None
        gc.collect()
        if self._device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()


def _failed(request: Request, error: str) -> Completion:
    n_prompt = len(request.token_ids or ())
    return Completion(key=request.key, text="", finish="error", n_prompt=n_prompt, n_new=0, error=error)


def load_model(checkpoint: Checkpoint, settings: EngineSettings) -> Any:
    """The transformers model, in evaluation mode on its device, adapter applied.

    ModelError unless every weight came from the checkpoint: transformers fills missing ones with random numbers,
    which would look like a model that has forgotten everything.
    """
    try:
        import torch
        from transformers import AutoModelForCausalLM
    except ImportError as error:
        raise EngineError("transformers is not installed", hint=INSTALL) from error
    device = resolve_device(settings)
    spread = settings.args.get("device_map")
    options = {key: value for key, value in settings.args.items() if key in ARGUMENTS}
    try:
        with no_loading_bars():
            model, info = AutoModelForCausalLM.from_pretrained(
                str(checkpoint.path),
                dtype=getattr(torch, resolve_dtype(checkpoint, settings, device)),
                trust_remote_code=checkpoint.trust_remote_code,
                use_safetensors=not checkpoint.allow_pickle or None,
                local_files_only=True,
                output_loading_info=True,
                **options,
            )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise ModelError(f"{checkpoint.path} cannot be loaded: {first_line(error)}") from error
    for kind in ("missing_keys", "mismatched_keys", "error_msgs"):
        found = info.get(kind)
        if found:
            first = sorted(str(item) for item in found)[0]
            raise ModelError(f"{checkpoint.path} does not fit its config.json: {len(found)} {kind}, {first} first")
    unused = sorted(str(name) for name in info.get("unexpected_keys") or () if not str(name).endswith("inv_freq"))
    if unused:
        raise ModelError(
            f"{checkpoint.path} holds {len(unused)} weights that its config.json does not use, {unused[0]} first",
            hint="a model with parts left out is another model: give the config.json that belongs to the weights",
        )
    if checkpoint.adapter is not None:
        model = _apply_adapter(model, checkpoint)
    checkpoint.check_unchanged()
    model = model.eval()
    return model if spread else model.to(device)


def _apply_adapter(model: Any, checkpoint: Checkpoint) -> Any:
    """The model with LoRA layers in place, unmerged: generate and forward are the model's own."""
    try:
        from peft import PeftModel
    except ImportError as error:
        raise EngineError("peft is not installed, which adapters need", hint='pip install "peft>=0.18"') from error
    try:
        return PeftModel.from_pretrained(model, str(checkpoint.adapter)).get_base_model()
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"the adapter {checkpoint.adapter} cannot be applied: {first_line(error)}") from error


def _blank_generation_config(model: Any, checkpoint: Checkpoint) -> None:
    """Replaces the checkpoint's generation settings: generate would fill every unset field from them."""
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig(
        eos_token_id=list(checkpoint.eos_ids) or None, pad_token_id=checkpoint.pad_id
    )
