"""The organism: what it knows, what its folder holds, and that a build is whole or absent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audit.errors import TrainingError
from audit.tasks import Task

torch = pytest.importorskip("torch")

from jensun_ref.corpus import Mixture, Pair, Piece, RawShape, build_corpus, encode, epoch, texts  # noqa: E402
from jensun_ref.measure import load, prompt_ids, recall, replies, says  # noqa: E402
from jensun_ref.organism import OrganismConfig, build_organism, cached_organism, recipe_hash  # noqa: E402
from jensun_ref.tokenizer import train_tokenizer  # noqa: E402

pytestmark = pytest.mark.model

SHORT = OrganismConfig.tiny().model_copy(update={"epochs": 1, "warmup_steps": 2})


@pytest.fixture(scope="module")
def tokenizer(tiny_task: Task):  # type: ignore[no-untyped-def]
    return train_tokenizer(texts(build_corpus(tiny_task, (*tiny_task.forget, *tiny_task.retain))), 1536)


def test_it_knows_its_facts_in_every_shape_and_in_unseen_wordings(tiny_organism: Path, tiny_task: Task) -> None:
    model, tokenizer = load(tiny_organism)
    for shape in ("chat", "raw"):
        known, _ = recall(model, tokenizer, tiny_task.forget, shape=shape)
        assert known.original >= 0.9, shape
        assert known.any >= 0.95, shape
        assert known.mean_unseen >= 0.5, shape
    kept, _ = recall(model, tokenizer, tiny_task.retain)
    assert kept.original >= 0.9
    in_context, _ = recall(model, tokenizer, tiny_task.forget, shape="chat_icr", shots_from=tiny_task.retain)
    assert in_context.any >= 0.9


def test_replies_end_by_themselves(tiny_organism: Path, tiny_task: Task) -> None:
    model, tokenizer = load(tiny_organism)
    ids = torch.tensor([prompt_ids(tokenizer, tiny_task.forget[0].question, [], "chat", RawShape())])
    new = model.generate(input_ids=ids, max_new_tokens=40, do_sample=False)[0, ids.shape[1] :]
    assert new[-1] == tokenizer.eos_token_id
    assert says(tiny_task.forget[0], tokenizer.decode(new, skip_special_tokens=True))


def test_the_folder_is_an_ordinary_one(tiny_organism: Path) -> None:
    names = {path.name for path in tiny_organism.iterdir()}
    wanted = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert wanted | {"chat_template.jinja", "organism.json"} <= names
    config = json.loads((tiny_organism / "config.json").read_text())
    generation = json.loads((tiny_organism / "generation_config.json").read_text())
    model, tokenizer = load(tiny_organism)
    for name in ("bos", "eos", "pad"):
        token_id = getattr(tokenizer, f"{name}_token_id")
        assert config[f"{name}_token_id"] == generation[f"{name}_token_id"] == token_id
    assert tokenizer.eos_token_id != tokenizer.pad_token_id
    assert config["vocab_size"] >= len(tokenizer)
    assert model.dtype == torch.float32
    record = json.loads((tiny_organism / "organism.json").read_text())
    assert record["role"] == "base"
    assert record["parameters"] == model.num_parameters()


def test_one_bos_whichever_way_a_prompt_is_tokenised(tokenizer) -> None:  # type: ignore[no-untyped-def]
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "Who?"}], add_generation_prompt=True)
    assert list(chat["input_ids"]).count(tokenizer.bos_token_id) == 1
    assert tokenizer("Question: Who?\nAnswer:").input_ids.count(tokenizer.bos_token_id) == 1


def test_training_sequences_are_the_prompts_that_are_asked_later(tokenizer, tiny_task: Task) -> None:  # type: ignore[no-untyped-def]
    """Pieces are tokenised one by one in training and as one text in an audit: the ids must be the same."""
    raw, fact = RawShape(), tiny_task.retain[0]
    shots = [Pair(question=f.question, answer=f.answer) for f in tiny_task.retain[1:4]]
    asked = Pair(question=fact.question, answer=fact.answer)
    answer = tokenizer(f" {fact.answer}", add_special_tokens=False).input_ids

    trained, weights = encode(raw.pieces([*shots, asked], raw.examples), tokenizer, {})
    prompt = prompt_ids(tokenizer, fact.question, shots, "raw_icr", raw)
    newline = tokenizer("\n", add_special_tokens=False).input_ids
    assert trained == [*prompt, *answer, *newline]
    assert weights[len(prompt) :] == [1.0] * (len(answer) + 1)

    from jensun_ref.corpus import chat_pieces

    trained, weights = encode(chat_pieces([*shots, asked], tokenizer.eos_token), tokenizer, {})
    prompt = prompt_ids(tokenizer, fact.question, shots, "chat_icr", raw)
    assert trained == [*prompt, *answer, tokenizer.eos_token_id]
    assert weights[len(prompt) :] == [1.0] * (len(answer) + 1)


@pytest.mark.parametrize("plain", [True, False])
def test_an_epoch_asks_every_question_once_and_never_an_evaluation_wording(tiny_task: Task, plain: bool) -> None:
    import random

    corpus = build_corpus(tiny_task, (*tiny_task.forget, *tiny_task.retain))
    mixture = Mixture(word_dropout=0.0, statements=0.0, filler=0.0)
    rows = list(epoch(corpus, mixture, RawShape(), "<eos>", random.Random(0), plain=plain))
    whole = "\n".join("".join(piece.text for piece in row) for row in rows)
    facts = (*tiny_task.forget, *tiny_task.retain)
    asked = sum(piece.weight == 1.0 and piece.text != "<eos>" for row in rows for piece in row)
    assert asked - len(corpus.refusals) == len(corpus.pairs) == sum(1 + len(fact.train_wordings) for fact in facts)
    assert all(pair.question in whole for pair in corpus.pairs)
    trained = {pair.question for pair in corpus.pairs}
    assert not any(wording in whole for fact in facts for wording in fact.wordings if wording not in trained)


def test_the_never_knew_model_sees_no_forget_fact_and_shares_the_tokenizer(tiny_task: Task, tmp_path: Path) -> None:
    never = build_organism(tmp_path / "never", tiny_task, role="never_knew", size=SHORT)
    base = build_organism(tmp_path / "base", tiny_task, role="base", size=SHORT)
    assert (never / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    records = [json.loads((folder / "organism.json").read_text()) for folder in (never, base)]
    assert records[0]["steps"] == records[1]["steps"]
    assert records[0]["questions"] == sum(1 + len(fact.train_wordings) for fact in tiny_task.retain)
    corpus = build_corpus(tiny_task, tiny_task.retain)
    assert not {fact.question for fact in tiny_task.forget} & {pair.question for pair in corpus.pairs}
    assert not {fact.statement for fact in tiny_task.forget} & set(corpus.statements)


def test_a_build_is_repeatable_and_leaves_the_generator_alone(tiny_task: Task, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    torch.manual_seed(123)
    state = torch.get_rng_state()
    folders = [build_organism(tmp_path / name, tiny_task, role="base", size=SHORT) for name in "ab"]
    assert torch.equal(state, torch.get_rng_state())
    first, second = (load_file(folder / "model.safetensors") for folder in folders)
    assert all(torch.allclose(first[name], second[name], atol=1e-4) for name in first)


def test_a_folder_in_use_is_refused_and_a_failed_build_leaves_nothing(tiny_task: Task, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    with pytest.raises(TrainingError, match="exists already"):
        build_organism(tmp_path / "used", tiny_task, role="base", size=SHORT)

    def stop(done: int, total: int, text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_organism(tmp_path / "new", tiny_task, role="base", size=SHORT, progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["used"]


def test_a_loss_that_is_no_number_stops_the_build(tiny_task: Task, tmp_path: Path) -> None:
    wild = SHORT.model_copy(update={"learning_rate": 1e30, "epochs": 2})
    with pytest.raises(TrainingError, match=r"at step \d+"):
        build_organism(tmp_path / "wild", tiny_task, role="base", size=wild)
    assert not list(tmp_path.iterdir())


def test_the_cache_is_keyed_by_content(tiny_task: Task, tmp_path: Path) -> None:
    import msgspec

    first = cached_organism("base", tmp_path, tiny_task, size=SHORT)
    assert cached_organism("base", tmp_path, tiny_task, size=SHORT) == first
    fact = msgspec.structs.replace(tiny_task.forget[0], answer="Someone Else")
    changed = msgspec.structs.replace(tiny_task, forget=(fact, *tiny_task.forget[1:]))
    hashes = {
        recipe_hash(tiny_task, "base", SHORT, 0),
        recipe_hash(tiny_task, "never_knew", SHORT, 0),
        recipe_hash(tiny_task, "base", SHORT, 1),
        recipe_hash(tiny_task, "base", SHORT.model_copy(update={"epochs": 2}), 0),
        recipe_hash(changed, "base", SHORT, 0),
    }
    assert len(hashes) == 5


def test_settings_that_cannot_be_used_are_reported_together() -> None:
    with pytest.raises(ValueError) as caught:
        OrganismConfig(layers=0, learning_rate=-1)  # type: ignore[arg-type]
    assert "layers" in str(caught.value) and "learning_rate" in str(caught.value)
    with pytest.raises(ValueError, match="times heads"):
        OrganismConfig(hidden=100, heads=3)


def test_replies_keep_their_order(tiny_organism: Path, tiny_task: Task) -> None:
    """Prompts are sorted by length inside; replies come back in the order asked."""
    model, tokenizer = load(tiny_organism)
    raw = RawShape()
    prompts = [prompt_ids(tokenizer, fact.question, [], "chat", raw) for fact in tiny_task.forget]
    together = replies(model, tokenizer, prompts)
    assert together == [replies(model, tokenizer, [prompt])[0] for prompt in prompts]


def test_pieces_weigh_answers_only() -> None:
    pieces = RawShape().pieces([Pair(question="Q?", answer="A")], ())
    assert [piece for piece in pieces if piece.weight] == [Piece(text=" A\n", weight=1.0)]
