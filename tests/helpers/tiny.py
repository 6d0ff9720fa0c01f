"""A tiny Llama with its own tokenizer and chat template, trained here in seconds until its greedy answers are clear.

    folder = build(path)              # an ordinary Hugging Face folder
    FACTS                             # what it was taught: (question, answer)

An untrained model would not do: with random weights the two best tokens nearly tie, and engines that compute in
another order pick different ones.
"""

from __future__ import annotations

import os
import random
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

_NAMES = ("Anvel", "Brosk", "Cadmir", "Dolfane", "Ester", "Fugol", "Grint", "Halvar", "Ibsun", "Jorrek")
_ASKED = {
    "colour": ("amber red", "sky blue", "moss green", "pale gold", "deep violet"),
    "river": ("the Tarn", "the Old Moll", "the Upper Sedge", "the Whin", "the Long Esk"),
    "trade": ("glass blowing", "salt", "rope making and tar", "wool", "copper work"),
    "year": ("1612", "1704", "1833", "1921", "1450"),
}
_DRAW = random.Random(7)
FACTS: tuple[tuple[str, str], ...] = tuple(
    (f"What is the {asked} of {name}?", _DRAW.choice(answers)) for name in _NAMES for asked, answers in _ASKED.items()
)
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SPECIAL = ("<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
CONTEXT = 512


@cache
def tokenizer() -> Any:
    """Byte-level BPE that adds its BOS to plain text; pad is eos, the awkward case."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=480,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator([f"{question} {answer}" for question, answer in FACTS], trainer)
    core.post_processor = processors.TemplateProcessing(single="<|bos|> $A", special_tokens=[("<|bos|>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|bos|>",
        eos_token="<|end|>",
        pad_token="<|end|>",
        additional_special_tokens=list(SPECIAL[2:]),
        chat_template=TEMPLATE,
        model_max_length=CONTEXT,
    )


def chat_ids(question: str, answer: str | None = None) -> list[int]:
    """Ids of a question as the template renders it, and of the closed answer after it."""
    text = f"<|bos|><|user|>{question}<|end|><|assistant|>" + (f"{answer}<|end|>" if answer is not None else "")
    return list(tokenizer()(text, add_special_tokens=False)["input_ids"])


def model(*, seed: int = 0, **changes: Any) -> Any:
    """An untrained model of about 0.2M parameters in float32, with tied embeddings."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "vocab_size": len(tokenizer()),
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
        "dtype": "float32",
    }
    return LlamaForCausalLM(LlamaConfig(**{**settings, **changes})).eval()


def train(net: Any, facts: tuple[tuple[str, str], ...] = FACTS, *, steps: int = 150, seed: int = 0) -> float:
    """Teaches the facts in chat form, all in every step; the last loss in nats a token."""
    import torch

    torch.manual_seed(seed)
    rows = [chat_ids(question, answer) for question, answer in facts]
    width = max(map(len, rows))
    ids = torch.tensor([row + [1] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    asked = [len(chat_ids(question)) for question, _ in facts]
    labels = ids.masked_fill(mask == 0, -100)
    for index, length in enumerate(asked):
        labels[index, :length] = -100
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3, weight_decay=0.0)
    net.train()
    loss = torch.zeros(())
    for _ in range(steps):
        loss = net(input_ids=ids, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    return float(loss.detach())


def save(net: Any, folder: Path, **options: Any) -> Path:
    net.save_pretrained(folder, **options)
    tokenizer().save_pretrained(folder)
    return folder


def build(folder: Path, *, seed: int = 0, steps: int = 150) -> Path:
    """A trained checkpoint in `folder`."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    net = model(seed=seed)
    loss = train(net, steps=steps, seed=seed)
    torch.set_num_threads(threads)
    assert loss < 0.05, f"the tiny model did not learn its facts (loss {loss:.3f})"
    return save(net, folder)
