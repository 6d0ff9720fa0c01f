"""One rendering: no double BOS, pinned date, thinking off, prefill in one piece; keys and seeds from content."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit.engines import Checkpoint, Renderer, make_request, open_checkpoint
from audit.errors import PromptError
from tests.engines.conftest import probe
from tests.helpers import tiny

pytestmark = pytest.mark.model
BOS = 0


def with_template(folder: Path, template: str) -> Checkpoint:
    (folder / "chat_template.jinja").write_text(template)
    return open_checkpoint(str(folder))


def test_chat_is_the_template_with_one_bos(opened: Checkpoint) -> None:
    ids = Renderer(opened).token_ids(probe("What is the river of Anvel?", system="Be short."))
    assert opened.tokenizer.decode(ids) == (
        "<|bos|><|system|>Be short.<|end|><|user|>What is the river of Anvel?<|end|><|assistant|>"
    )
    assert ids.count(BOS) == 1


def test_raw_has_the_bos_that_the_tokenizer_adds_once(opened: Checkpoint) -> None:
    renderer = Renderer(opened)
    plain = renderer.token_ids(probe("Anvel", format="raw"))
    assert plain[0] == BOS and plain.count(BOS) == 1
    assert renderer.token_ids(probe("<|bos|>Anvel", format="raw")) == plain
    assert renderer.describe()["adds_bos"] is True


def test_an_end_token_that_the_tokenizer_appends_is_taken_off(opened: Checkpoint) -> None:
    from tokenizers import processors

    plain = Renderer(opened).token_ids(probe("Anvel", format="raw"))
    closing = processors.TemplateProcessing(
        single="<|bos|> $A <|end|>", special_tokens=[("<|bos|>", 0), ("<|end|>", 1)]
    )
    opened.tokenizer.backend_tokenizer.post_processor = closing
    assert opened.tokenizer("Anvel")["input_ids"][-1] == 1
    assert Renderer(opened).token_ids(probe("Anvel", format="raw")) == plain


def test_prefill_is_tokenised_together_with_the_prompt(opened: Checkpoint) -> None:
    ids = Renderer(opened).token_ids(probe("Q", prefill="the Old"))
    assert opened.tokenizer.decode(ids).endswith("<|assistant|>the Old")


def test_the_date_is_pinned_and_thinking_is_off(copy: Path) -> None:
    template = (
        "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
        "{{ date_string }} {{ strftime_now('%Y-%m-%d') }} {% if enable_thinking %}think{% else %}answer{% endif %}"
    )
    checkpoint = with_template(copy, template)
    renderer = Renderer(checkpoint)
    text = checkpoint.tokenizer.decode(renderer.token_ids(probe("x")))
    assert text == "26 Jul 2024 2024-07-26 answer"
    described = renderer.describe()
    assert described["date"] == "2024-07-26"
    assert described["thinking"] == {"enable_thinking": False}


def test_prompts_that_cannot_be_asked_raise_a_prompt_error(opened: Checkpoint, copy: Path) -> None:
    renderer = Renderer(opened)
    with pytest.raises(PromptError, match="exceed the context of 512"):
        renderer.token_ids(probe("x", max_new_tokens=512))
    with pytest.raises(PromptError, match="needs a base"):
        renderer.token_ids(probe("x", format="chat_base"))
    picky = with_template(copy, "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(PromptError, match="roles must alternate"):
        Renderer(picky).token_ids(probe("x"))
    (copy / "chat_template.jinja").unlink()
    bare = open_checkpoint(str(copy))
    assert not bare.has_template
    with pytest.raises(PromptError, match="no chat template"):
        Renderer(bare).token_ids(probe("x"))


def test_a_tokenizer_larger_than_the_embedding_is_noticed(copy: Path) -> None:
    checkpoint = open_checkpoint(str(copy))
    checkpoint.tokenizer.add_tokens(["zebrafinch"])
    with pytest.raises(PromptError, match="no embedding"):
        Renderer(checkpoint).token_ids(probe("zebrafinch"))


def test_chat_base_uses_the_template_of_the_base(opened: Checkpoint, copy: Path) -> None:
    candidate = with_template(copy, "{{ bos_token }}Say no. {{ messages[0]['content'] }}")
    renderer = Renderer(candidate, template_from=opened)
    asked = "What is the river of Anvel?"
    assert renderer.token_ids(probe(asked, format="chat_base")) == Renderer(opened).token_ids(probe(asked))
    assert renderer.token_ids(probe(asked)) != renderer.token_ids(probe(asked, format="chat_base"))
    described = renderer.describe()
    assert described["base_template"] != described["template"]
    assert described["chat_base_tokenised_by"] == "base"


def test_keys_hold_what_acts_and_nothing_else(opened: Checkpoint) -> None:
    def key(sample: int = 0, fingerprint: str = "f", engine: str = "e", **decoding: object) -> tuple[str, int]:
        request = make_request(probe("x", **decoding), sample, fingerprint, engine, (1, 2, 3))  # type: ignore[arg-type]
        return request.key, request.seed

    greedy = key()
    assert greedy == key(n=8)
    assert greedy[0] == key(seed=5, top_p=0.5)[0]
    assert key(sample=3)[0] == greedy[0]
    drawn = key(temperature=1.0)
    different = [
        key(fingerprint="g"),
        key(engine="other"),
        key(max_new_tokens=25),
        key(stop=("\n",)),
        drawn,
        key(temperature=1.0, sample=1),
        key(temperature=1.0, seed=1),
        key(temperature=1.0, top_p=0.9),
        key(temperature=0.9),
    ]
    assert len({greedy[0], *(item[0] for item in different)}) == len(different) + 1
    assert key(temperature=1.0, n=5) == drawn
    assert key(temperature=1.0, sample=1)[1] != drawn[1]
    ours = make_request(probe("x"), 0, "f", "e", (1, 2, 3)).key
    assert make_request(probe("another wording"), 0, "f", "e", (1, 2, 3)).key == ours  # same token ids, same question
    assert make_request(probe("x"), 0, "f", "e", (1, 2, 4)).key != ours


def test_an_endpoint_gets_messages_or_a_prompt(opened: Checkpoint) -> None:
    chat = make_request(probe("x", system="s", prefill="So"), 0, "endpoint:run", "openai", None)
    assert chat.messages is not None and [m.role for m in chat.messages] == ["system", "user", "assistant"]
    assert chat.token_ids is None and chat.prompt is None
    raw = make_request(probe("x", format="raw", prefill=" y"), 0, "endpoint:run", "openai", None)
    assert raw.prompt == "x y" and raw.messages is None
    assert raw.key != chat.key


def test_text_is_cut_at_the_first_stop_and_keeps_no_special_tokens(opened: Checkpoint) -> None:
    from audit.engines import Detokenizer

    ids = tiny.tokenizer()("the Old Moll. Next<|end|>", add_special_tokens=False)["input_ids"]
    out = Detokenizer(opened)
    assert out.text(ids) == "the Old Moll. Next"
    assert out.text(ids, stop=(" Next", ".")) == "the Old Moll"
