"""lm-evaluation-harness's view of an engine: its class of language models, over the engine that is already loaded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from audit.errors import EngineError
from audit.types import Decoding
from audit.utility.harness.asking import Asker, Pair
from audit.utility.harness.encode import Encoder
from audit.utility.harness.ties import Scored, by_task

#: Of an answer, where a task does not say: as the harness's class for transformers models.
MAX_NEW_TOKENS = 256
#: What a greedy answer does not depend on.
_IDLE = frozenset({"do_sample", "temperature", "until", "max_gen_toks", "top_p", "top_k", "min_p", "seed"})


def greedy_settings(kwargs: dict[str, Any]) -> tuple[tuple[str, ...], int]:
    """Stop strings and limit of new tokens of a task's generation settings.

    Raises ValueError, saying why, for settings that draw at random or change what greedy decoding gives.
    """
    from lm_eval.models.utils import normalize_gen_kwargs

    settings = dict(normalize_gen_kwargs(dict(kwargs), MAX_NEW_TOKENS))
    if settings.get("do_sample"):
        raise ValueError("its answers are drawn at random (do_sample), and subjects are compared greedily")
    other = sorted(set(settings) - _IDLE)
    if other:
        raise ValueError(f"its generation_kwargs {', '.join(other)} are not known to the audit's engines")
    until = settings.get("until") or []
    stops = tuple(str(text) for text in (until if isinstance(until, list) else [until]) if text)
    limit = int(settings["max_gen_toks"])
    if limit < 1:
        raise ValueError("its answers have no room (max_gen_toks)")
    return stops, limit


def harness_model(encoder: Encoder, asker: Asker) -> Any:
    """An instance of lm-evaluation-harness's `TemplateLM` that asks our engine.

    After use, `model.window` is the number of tokens that the engine looked at when it scored.
    """
    from lm_eval.api.model import TemplateLM
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    class HarnessModel(TemplateLM):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.tokenizer = encoder.tokenizer

        @property
        def tokenizer_name(self) -> str:
            return encoder.checkpoint.tokenizer_fingerprint

        @property
        def eot_token_id(self) -> Any:
            return encoder.tokenizer.eos_token_id

        @property
        def prefix_token_id(self) -> int:
            return encoder.prefix

        @property
        def window(self) -> int:
            """What vLLM scores is a prompt with one new token after it; other engines see the model's whole context."""
            room = asker.context
            return encoder.context if room is None else min(encoder.context, room - 2)

        @property
        def max_length(self) -> int:
            return self.window

        def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
            return list(encoder.text(string, marks=add_special_tokens))

        def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
            return encoder.chat(chat_history, add_generation_prompt=add_generation_prompt)

        def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            pairs = [self._fit(*encoder.pair(*request.args), request) for request in requests]
            scores = asker.score(pairs, _tasks(requests))
            scored: dict[str, list[Scored]] = {}
            for request, pair in zip(requests, pairs, strict=True):
                row = Scored(int(request.doc_id or 0), pair, scores[pair].token_logprobs)
                scored.setdefault(str(request.task_name), []).append(row)
            by_task(scored)
            return [(sum(scores[pair].token_logprobs), scores[pair].greedy) for pair in pairs]

        def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
            windows: list[list[Pair]] = []
            for request in requests:
                (text,) = request.args
                parts = get_rolling_token_windows(
                    token_list=list(encoder.text(text)),
                    prefix_token=encoder.prefix,
                    max_seq_len=self.window,
                    context_len=1,
                )
                pairs = [make_disjoint_window(part) for part in parts]
                windows.append([(tuple(before), tuple(after)) for before, after in pairs])
            scores = asker.score([pair for pairs in windows for pair in pairs], _tasks(requests))
            scored: dict[str, list[Scored]] = {}
            totals = []
            for number, (request, pairs) in enumerate(zip(requests, windows, strict=True)):
                values = tuple(value for pair in pairs for value in scores[pair].token_logprobs)
                ids = tuple(token for _, after in pairs for token in after)
                scored.setdefault(str(request.task_name), []).append(Scored(number, ((), ids), values))
                totals.append(sum(values))
            by_task(scored)
            return totals

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            room = encoder.context if asker.context is None else min(encoder.context, asker.context)
            end = [encoder.eos_text] if encoder.eos_text else []
            prompts = []
            for request in requests:
                text, kwargs = request.args
                try:
                    stops, limit = greedy_settings(kwargs)
                except ValueError as error:
                    raise EngineError(f"task {request.task_name}: {error}") from error
                decoding = Decoding(max_new_tokens=limit, stop=tuple(dict.fromkeys((*stops, *end))))
                prompts.append((encoder.prompt(text, limit, room), decoding))
            texts = asker.generate(prompts, _tasks(requests))
            return [texts[prompt] for prompt in prompts]

        def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> list[tuple[float, bool]]:
            pairs = [(tuple(context), tuple(continuation)) for _, context, continuation in requests]
            scores = asker.score(pairs, "texts")
            return [(sum(scores[pair].token_logprobs), scores[pair].greedy) for pair in pairs]

        def _fit(self, context: tuple[int, ...], continuation: tuple[int, ...], request: Any) -> Pair:
            if len(continuation) > self.window:
                raise EngineError(
                    f"task {request.task_name}: an answer of {len(continuation)} tokens exceeds the {self.window} that "
                    "can be scored"
                )
            return encoder.cut_pair(context, continuation, self.window)

    return HarnessModel()


def _tasks(requests: Sequence[Any]) -> str:
    """Their tasks, for messages."""
    names = sorted({str(request.task_name) for request in requests})
    return names[0] if len(names) == 1 else f"{len(names)} tasks of lm-eval"
