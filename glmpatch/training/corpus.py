"""A small made-up corpus of adverts, so that a tiny model has something to learn in a minute."""

# ruff: noqa: RUF001 - Chinese text has full-width commas

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TRAIN_ROWS = 480
DEV_ROWS = 32
CHAT_ROWS = 64

_GARMENTS = ("衬衫", "连衣裙", "外套", "毛衣", "风衣", "牛仔裤", "半身裙", "卫衣")
_COLOURS = ("白色", "黑色", "红色", "蓝色", "绿色", "灰色")
_FABRICS = ("棉麻", "真丝", "羊毛", "雪纺", "针织")
_STYLES = ("简约", "复古", "休闲", "优雅", "清新")

_OPENINGS = (
    "这款{colour}的{garment}以{fabric}面料裁剪而成，",
    "一件{colour}{garment}，采用柔软的{fabric}面料，",
    "精选{fabric}面料的{garment}，{colour}十分衬肤色，",
)
_ENDINGS = (
    "{style}的设计让你轻松穿出好气质。",
    "整体风格{style}，日常通勤都很百搭。",
    "{style}又不失细节，上身舒适有型。",
)


@dataclass(frozen=True, slots=True)
class Item:
    """A thing to advertise."""

    garment: str
    colour: str
    fabric: str
    style: str

    @property
    def facts(self) -> str:
        """What the model is asked about."""
        return f"类型#{self.garment}*颜色#{self.colour}*面料#{self.fabric}*风格#{self.style}"

    @property
    def plain(self) -> str:
        """The answer that only lists the facts."""
        return f"商品为{self.garment}，颜色为{self.colour}，面料为{self.fabric}，风格为{self.style}。"

    def advert(self, rng: random.Random) -> str:
        """The answer that sells."""
        template = rng.choice(_OPENINGS) + rng.choice(_ENDINGS)
        return template.format(garment=self.garment, colour=self.colour, fabric=self.fabric, style=self.style)


@dataclass(frozen=True, slots=True)
class Corpus:
    """Questions and answers. No item is in two of the parts.

    Attributes:
        general: For the pre-training of the body: the answers list the facts.
        train: For the tuning of the prefix: the answers are adverts, of which the body knows nothing.
        dev: The same, to try the tuned prefix on.
    """

    general: tuple[tuple[str, str], ...]
    train: tuple[tuple[str, str], ...]
    dev: tuple[tuple[str, str], ...]


def make_corpus(seed: int) -> Corpus:
    """Write the corpus. The same seed gives the same texts."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    items = [Item(*fields) for fields in itertools.product(_GARMENTS, _COLOURS, _FABRICS, _STYLES)]
    rng.shuffle(items)
    dev, train, general = items[:DEV_ROWS], items[DEV_ROWS : DEV_ROWS + TRAIN_ROWS], items[DEV_ROWS + TRAIN_ROWS :]
    return Corpus(
        general=tuple((item.facts, item.plain) for item in general),
        train=tuple((item.facts, item.advert(rng)) for item in train),
        dev=tuple((item.facts, item.advert(rng)) for item in dev),
    )


def write_data(corpus: Corpus, folder: Path) -> None:
    """Write `train.json`, `dev.json` and `chat.json`, all JSON lines, as upstream's scripts read them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", corpus.train), ("dev", corpus.dev)):
        _write_lines(folder / f"{name}.json", ({"content": query, "summary": answer} for query, answer in rows))
    _write_lines(folder / "chat.json", _chat(corpus.train[: 2 * CHAT_ROWS]))


def _chat(rows: tuple[tuple[str, str], ...]) -> Iterable[dict[str, object]]:
    """Pairs of rows as the two turns of a talk."""
    for earlier, (query, answer) in zip(rows[::2], rows[1::2], strict=True):
        yield {"prompt": query, "response": answer, "history": [list(earlier)]}


def _write_lines(file: Path, rows: Iterable[dict[str, object]]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    file.write_text("".join(lines), encoding="utf-8", newline="\n")
