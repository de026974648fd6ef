from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from glmpatch.training.corpus import make_corpus
from glmpatch.training.demo import SEED

pytestmark = pytest.mark.train

QUERY, ANSWER = make_corpus(SEED).train[0]


def pair(tokenizer: Any, query: str = QUERY, answer: str = ANSWER) -> Any:
    """One question with its answer, as a batch."""
    a_ids = tokenizer.encode(text=query, add_special_tokens=False)
    b_ids = tokenizer.encode(text=answer, add_special_tokens=False)
    return tokenizer.pad(
        {"input_ids": [tokenizer.build_inputs_with_special_tokens(a_ids, b_ids)]}, return_tensors="pt"
    )["input_ids"]


@pytest.mark.parametrize("text", [QUERY, ANSWER, "two  spaces, ASCII: (x)!", "换行\n和制表\t", "🙂 龘"])
def test_text_survives_the_tokenizer(tokenizer: Any, text: str) -> None:
    ids = tokenizer.encode(text=text, add_special_tokens=False)
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_a_pair_is_built_as_chatglm_builds_it(tokenizer: Any) -> None:
    ids = tokenizer.build_inputs_with_special_tokens([100, 101], [200])
    assert ids == [100, 101, tokenizer.gmask_token_id, tokenizer.bos_token_id, 200, tokenizer.eos_token_id]
    assert ids.index(tokenizer.bos_token_id) == 3
    special = [tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.gmask_token_id]
    assert len({*special, tokenizer.unk_token_id}) == 5
    assert tokenizer.decode([*special, -100], skip_special_tokens=True) == ""


def test_a_batch_is_padded_on_the_left(tokenizer: Any) -> None:
    batch = tokenizer([QUERY, QUERY[:8]], padding=True)
    short, mask = batch["input_ids"][1], batch["attention_mask"][1]
    assert short[-2:] == [tokenizer.gmask_token_id, tokenizer.bos_token_id]
    assert short[0] == tokenizer.pad_token_id
    assert mask == [int(index != tokenizer.pad_token_id) for index in short]


def test_the_tokenizer_can_be_saved_and_loaded(hub: Any, tokenizer: Any, tmp_path: Path, model_folder: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    code = "tokenization_chatglm.py"
    (tmp_path / code).write_bytes((model_folder / code).read_bytes())
    again = hub.AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=True)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again(QUERY) == tokenizer(QUERY)


def test_the_weights_are_fp16_and_the_prefix_is_fp32(torch: Any, hub: Any, model_folder: Path, model: Any) -> None:
    weights = torch.load(model_folder / "pytorch_model.bin", weights_only=True)
    assert {value.dtype for value in weights.values()} == {torch.float16}
    assert not any("prefix_encoder" in name for name in weights)
    assert {parameter.dtype for parameter in model.transformer.prefix_encoder.parameters()} == {torch.float32}
    whole = hub.AutoModel.from_pretrained(model_folder, trust_remote_code=True)
    assert all(parameter.requires_grad for parameter in whole.parameters())


def test_the_prefix_is_a_past_of_every_layer(torch: Any, model: Any) -> None:
    config = model.config
    past = model.transformer.get_prompt(3, torch.device("cpu"), torch.bfloat16)
    size = config.hidden_size // config.num_attention_heads
    assert len(past) == config.num_layers
    assert {tuple(layer.shape) for layer in past} == {(2, 3, config.num_attention_heads, 4, size)}
    assert past[0].dtype == torch.bfloat16


def test_a_projected_prefix_has_the_same_shape(torch: Any, hub: Any, model_folder: Path) -> None:
    config = hub.AutoConfig.from_pretrained(model_folder, trust_remote_code=True)
    config.pre_seq_len, config.prefix_projection = 5, True
    model = hub.AutoModel.from_pretrained(model_folder, config=config, trust_remote_code=True)
    past = model.transformer.get_prompt(2, torch.device("cpu"), torch.float32)
    assert past[0].shape == (2, 2, config.num_attention_heads, 5, config.hidden_size // config.num_attention_heads)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_only_the_prefix_learns(model: Any, tokenizer: Any, checkpointing: bool) -> None:
    model = model.float().train()
    if checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    ids = pair(tokenizer)
    model(input_ids=ids, labels=ids).loss.backward()
    learning = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learning == {"transformer.prefix_encoder.embedding.weight"}
    assert model.transformer.prefix_encoder.embedding.weight.grad.abs().sum() > 0


def test_the_question_sees_itself_whole_and_the_answer_what_precedes_it(torch: Any, model: Any, tokenizer: Any) -> None:
    ids = torch.tensor([[tokenizer.pad_token_id, 50, 51, tokenizer.gmask_token_id, tokenizer.bos_token_id, 60, 61]])
    positions = model.transformer.get_position_ids(ids)
    assert positions.tolist() == [[[0, 0, 1, 2, 2, 2, 2], [0, 0, 0, 0, 1, 2, 3]]]
    visible = model.transformer.get_visible(positions, ids != tokenizer.pad_token_id, past_length=2)[0, 0].int()
    assert visible[1:].tolist() == [
        *([[1, 1, 0, 1, 1, 1, 0, 0, 0]] * 3),
        [1, 1, 0, 1, 1, 1, 1, 0, 0],
        [1, 1, 0, 1, 1, 1, 1, 1, 0],
        [1, 1, 0, 1, 1, 1, 1, 1, 1],
    ]


def test_padding_changes_nothing(torch: Any, model: Any, tokenizer: Any) -> None:
    model = model.float().eval()
    ids = pair(tokenizer)
    pads = torch.full((1, 5), tokenizer.pad_token_id)
    expected = model(input_ids=ids).logits
    left, right = (model(input_ids=torch.cat(parts, dim=1)).logits for parts in ((pads, ids), (ids, pads)))
    assert torch.allclose(left[:, 5:], expected, atol=1e-4)
    assert torch.allclose(right[:, :-5], expected, atol=1e-4)


def test_the_body_lists_the_facts(hub: Any, model_folder: Path, tokenizer: Any) -> None:
    model = hub.AutoModel.from_pretrained(model_folder, trust_remote_code=True).float().eval()
    corpus = make_corpus(SEED)
    response, history = model.chat(tokenizer, corpus.general[0][0])
    assert response == corpus.general[0][1]
    assert history == [(corpus.general[0][0], response)]


@pytest.mark.parametrize("options", [{}, {"num_beams": 2}, {"do_sample": True, "top_p": 0.7, "temperature": 0.95}])
def test_it_generates_with_a_prefix(model: Any, tokenizer: Any, options: dict[str, Any]) -> None:
    model = model.float().eval()
    batch = tokenizer([QUERY, QUERY[:10]], padding=True, return_tensors="pt")
    length = batch["input_ids"].size(1)
    written = model.generate(**batch, max_length=length + 6, **options)
    assert written.shape[0] == 2
    assert length < written.shape[1] <= length + 6


def test_the_cache_of_generation_changes_nothing(model: Any, tokenizer: Any) -> None:
    model = model.float().eval()
    batch = tokenizer([QUERY, QUERY[:10]], padding=True, return_tensors="pt")
    written = [model.generate(**batch, max_length=60, use_cache=use_cache).tolist() for use_cache in (True, False)]
    assert written[0] == written[1]


def test_quantisation_needs_cuda(torch: Any, model: Any) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises((AssertionError, RuntimeError), match=r"CUDA|NVIDIA"):
        model.quantize(4)
