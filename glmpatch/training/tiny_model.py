"""Builds a tiny ChatGLM-like model in the form in which the model hub gives the real one.

Run as a module, in a process of its own: torch and transformers are slow to import, and they read their environment
when they are.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer

from glmpatch.assets import asset_folder
from glmpatch.training.corpus import Corpus, make_corpus

# 256 pieces are bytes, for what is not in the corpus.
_VOCABULARY = 512
_PRETRAINING_STEPS = 250
_BATCH = 32
_TOKENS = 96
_LEARNING_RATE = 3e-3
_CODE = ("configuration_chatglm", "modeling_chatglm", "tokenization_chatglm")


def build_model(folder: Path, *, corpus: Corpus, seed: int) -> float:
    """Write the code, the tokenizer and the pre-trained weights (fp16) into `folder`.

    Takes seconds, needs no network. On one machine the same seed gives the same model.

    Returns:
        The last loss of the pre-training, in nats per token.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in _CODE:
        shutil.copyfile(asset_folder("templates") / "demo" / "model" / f"{name}.py", folder / f"{name}.py")
    texts = chain.from_iterable((*corpus.general, *corpus.train))
    (folder / "sentencepiece.model").write_bytes(train_tokenizer(texts))
    _write_json(folder / "tokenizer_config.json", _tokenizer_config())
    _write_json(folder / "config.json", _model_config())
    return _pretrain(folder, corpus.general, seed)


def train_tokenizer(texts: Iterable[str]) -> bytes:
    """A sentencepiece model of the texts, which keeps every character as it is."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=_VOCABULARY,
        model_type="unigram",
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        pad_id=0,
        unk_id=1,
        bos_id=2,
        eos_id=3,
        pad_piece="<pad>",
        bos_piece="<sop>",
        eos_piece="<eop>",
        control_symbols=["[gMASK]"],
        num_threads=1,
        hard_vocab_limit=False,
        minloglevel=1,
    )
    return model.getvalue()


def _tokenizer_config() -> dict[str, Any]:
    return {
        "auto_map": {"AutoTokenizer": ["tokenization_chatglm.ChatGLMTokenizer", None]},
        "tokenizer_class": "ChatGLMTokenizer",
        "padding_side": "left",
    }


def _model_config() -> dict[str, Any]:
    return {
        "architectures": ["ChatGLMForConditionalGeneration"],
        "auto_map": {
            "AutoConfig": "configuration_chatglm.ChatGLMConfig",
            "AutoModel": "modeling_chatglm.ChatGLMForConditionalGeneration",
            "AutoModelForSeq2SeqLM": "modeling_chatglm.ChatGLMForConditionalGeneration",
        },
        "model_type": "chatglm",
        "vocab_size": _VOCABULARY,
        "torch_dtype": "float16",
    }


def _write_json(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _pretrain(folder: Path, pairs: Sequence[tuple[str, str]], seed: int) -> float:
    """Teach the whole body the pairs, in fp32, and save it in fp16."""
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    model = AutoModel.from_config(config, trust_remote_code=True).float().train()
    inputs = torch.tensor([_encode(tokenizer, query, answer) for query, answer in pairs])
    labels = _mask_questions(inputs, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=_PRETRAINING_STEPS)
    loss = torch.tensor(0.0)
    for _ in range(_PRETRAINING_STEPS):
        rows = torch.randint(len(inputs), (_BATCH,))
        loss = model(input_ids=inputs[rows], labels=labels[rows]).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.half().save_pretrained(folder)
    return loss.item()


def _encode(tokenizer: Any, query: str, answer: str) -> list[int]:
    """The ids of a question and its answer, padded on the right."""
    ids: list[int] = tokenizer.build_inputs_with_special_tokens(
        tokenizer.encode(query, add_special_tokens=False), tokenizer.encode(answer, add_special_tokens=False)
    )
    return ids + [tokenizer.pad_token_id] * (_TOKENS - len(ids))


def _mask_questions(inputs: torch.Tensor, tokenizer: Any) -> torch.Tensor:
    """The labels: the answers alone count."""
    in_answer = (inputs == tokenizer.bos_token_id).cumsum(dim=1) > 0
    return inputs.masked_fill(~in_answer | (inputs == tokenizer.pad_token_id), -100)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    arguments = parser.parse_args()
    build_model(arguments.folder, corpus=make_corpus(arguments.seed), seed=arguments.seed)


if __name__ == "__main__":
    _main()
