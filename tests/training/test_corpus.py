from __future__ import annotations

import json
from pathlib import Path

from glmpatch.training.corpus import DEV_ROWS, TRAIN_ROWS, make_corpus, write_data


def test_the_same_seed_gives_the_same_texts() -> None:
    assert make_corpus(3) == make_corpus(3)
    assert make_corpus(3) != make_corpus(4)


def test_no_item_is_in_two_parts() -> None:
    corpus = make_corpus(3)
    parts = [{query for query, _ in part} for part in (corpus.general, corpus.train, corpus.dev)]
    assert [len(part) for part in parts[1:]] == [TRAIN_ROWS, DEV_ROWS]
    assert len(set.union(*parts)) == sum(len(part) for part in parts)


def test_the_body_never_sees_an_advert() -> None:
    corpus = make_corpus(3)
    assert all(answer.startswith("商品为") for _, answer in corpus.general)
    assert not any(answer.startswith("商品为") for _, answer in corpus.train)


def test_the_files_are_what_upstream_reads(tmp_path: Path) -> None:
    corpus = make_corpus(3)
    write_data(corpus, tmp_path / "data")
    rows = [json.loads(line) for line in (tmp_path / "data" / "train.json").read_text("utf-8").splitlines()]
    assert [(row["content"], row["summary"]) for row in rows] == list(corpus.train)
    chats = [json.loads(line) for line in (tmp_path / "data" / "chat.json").read_text("utf-8").splitlines()]
    assert set(chats[0]) == {"prompt", "response", "history"}
    assert chats[0]["history"] == [list(corpus.train[0])]
