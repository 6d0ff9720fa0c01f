"""A tiny Llama that has learnt to reply to two short judge prompts: with the right label to three forms of text.

    folder = build(path)              # an ordinary Hugging Face folder
    local:FOLDER?prompt=SHORT         # SHORT asks for the bare label, SHORT_JSON for an object
    claim(0, SAYS_IT)                 # a text that it was taught to call LEAK

What it says of other texts, and to other prompts, is worthless.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from audit.fingerprint import digest
from audit.judges.llm.pair_prompt import load_pair_prompt, make_pair
from audit.judges.llm.prompt import FilePrompt, load_judge_prompt
from audit.types import Claim, Item, Pair
from tests.helpers import tiny

CONTEXT = 16_384
_PROMPTS = Path(__file__).parent / "prompts"
SHORT, SHORT_JSON, SHORT_PAIR = (
    str(_PROMPTS / name) for name in ("short.v1.md", "short_json.v1.md", "short_pair.v1.md")
)
SAYS_IT, REFUSES, WAVERS = "It is {}.", "I do not know.", "Perhaps {} or not, perhaps, perhaps."
#: Form of the text -> the label it was taught.
TAUGHT = {SAYS_IT: "LEAK", REFUSES: "CLEAR", WAVERS: "UNSURE"}


def claim(number: int, form: str) -> Claim:
    """A claim about one of the facts of `tiny`, with a text of the given form."""
    question, answer = tiny.FACTS[number]
    text = form.format(answer)
    return Claim(
        key=digest("claim", question, answer, text),
        question=question,
        answer=answer,
        aliases=(),
        answer_type="term",
        text=text,
    )


def pair(number: int, first: str, second: str) -> Pair:
    """Two replies, of the given forms, to the question about one of the facts of `tiny`."""
    question, answer = tiny.FACTS[number]
    return make_pair(question, first.format(answer), second.format(answer))


def tokenizer(prompts: Sequence[FilePrompt], shown: Item) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1600,
        special_tokens=list(tiny.SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [part for prompt in prompts for part in (prompt.system(), prompt.user([shown]))]
    texts += [form.format(answer) + question for form in TAUGHT for question, answer in tiny.FACTS]
    core.train_from_iterator(texts, trainer)
    core.post_processor = processors.TemplateProcessing(single="<|bos|> $A", special_tokens=[("<|bos|>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|bos|>",
        eos_token="<|end|>",
        pad_token="<|end|>",
        additional_special_tokens=list(tiny.SPECIAL[2:]),
        chat_template=tiny.TEMPLATE,
        model_max_length=CONTEXT,
    )


def reply(prompt: FilePrompt, label: str) -> str:
    return label if prompt.schema() is None else f'{{"why": "so", "label": "{label}"}}'


def build(folder: Path, *, steps: int = 80) -> Path:
    """A judge in `folder` that replies to both prompts."""
    forms = list(TAUGHT)
    items: list[tuple[Item, str]] = [(claim(n, forms[n % 3]), TAUGHT[forms[n % 3]]) for n in range(9)]
    return _taught([load_judge_prompt(path) for path in (SHORT, SHORT_JSON)], items, folder, steps)


def build_of_pairs(folder: Path, *, steps: int = 80) -> Path:
    """A judge in `folder` that replies to SHORT_PAIR: the reply that says it is better, two refusals are a tie."""
    return _taught([load_pair_prompt(SHORT_PAIR)], taught_pairs(), folder, steps)


def taught_pairs() -> list[tuple[Item, str]]:
    """What it was taught, with the label of each."""
    forms = {(SAYS_IT, REFUSES): "FIRST", (REFUSES, SAYS_IT): "SECOND", (REFUSES, REFUSES + " No."): "TIE"}
    return [(pair(n, *texts), label) for n in range(3) for texts, label in forms.items()]


def _taught(loaded: Sequence[FilePrompt], items: Sequence[tuple[Item, str]], folder: Path, steps: int) -> Path:
    import torch

    tok = tokenizer(loaded, items[0][0])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    net = tiny.model(vocab_size=len(tok), max_position_embeddings=CONTEXT)
    examples = []
    for prompt in loaded:
        for item, label in items:
            messages = [
                {"role": "system", "content": prompt.system()},
                {"role": "user", "content": prompt.user([item])},
            ]
            asked = tok.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            ids = tok(asked, add_special_tokens=False)["input_ids"]
            said = tok(reply(prompt, label) + "<|end|>", add_special_tokens=False)["input_ids"]
            examples.append((ids, said))
    loss = _train(net, examples, steps)
    torch.set_num_threads(threads)
    assert loss < 0.1, f"the tiny judge did not learn to reply (loss {loss:.3f})"
    net.save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder


def _train(net: Any, examples: list[tuple[list[int], list[int]]], steps: int) -> float:
    import torch

    torch.manual_seed(0)
    width = max(len(asked) + len(said) for asked, said in examples)
    ids = torch.tensor([asked + said + [1] * (width - len(asked) - len(said)) for asked, said in examples])
    labels = torch.full_like(ids, -100)
    for row, (asked, said) in enumerate(examples):
        labels[row, len(asked) : len(asked) + len(said)] = torch.tensor(said)
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3, weight_decay=0.0)
    net.train()
    loss = torch.zeros(())
    for _ in range(steps):
        loss = net(input_ids=ids, labels=labels).loss  # padding stands behind what is learnt
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    return float(loss.detach())
