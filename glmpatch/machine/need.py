"""How much memory one rank of a P-tuning needs: arithmetic on the code that runs.

That is upstream's `ptuning/main.py` and `trainer.py` as patched, the `modeling_chatglm.py` of the model hub,
transformers 4.28, and DistributedDataParallel. `rank_need` says which of them makes each amount.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, TypeAlias

from glmpatch.errors import UsageError

NeedDtype: TypeAlias = Literal["bf16", "fp32"]

# Pages of libraries, which all ranks share, as measured. Files that were just written map more at once: up to 300 MB.
LIBRARIES = 170_000_000
# With those: Python, torch, transformers and datasets, as measured on a rank with a model of 0.3 MB.
_RUNTIME = LIBRARIES + 290_000_000
# The pages of libmpi and libfabric, and of the segments that ranks share, as measured with two ranks; the backend has
# one buffer of 512 KB besides (`kChunk`).
_MPI = 10_000_000
# From this size on, the most that M_MMAP_THRESHOLD grows to, glibc gives freed memory back at once. Of smaller pieces
# it keeps twice as much at the end of its heap (M_TRIM_THRESHOLD), and what lies in holes before that.
_MMAPPED = 32 * 1024**2
_KEPT_BY_MALLOC = 2 * _MMAPPED
_FP16, _FP32 = 2, 4


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes of a model that is built like ChatGLM-6B.

    Attributes:
        layers: Its blocks.
        hidden: The width of the hidden state.
        heads: The heads of the attention.
        inner: The width inside a block's feed-forward part.
        vocab: The tokens that it knows.
        files: The bytes of each file of its checkpoint, in the order of their names; empty if it is one file.
        fills_fp32: Whether its code first fills its parameters in fp32. ChatGLM-6B's `skip_init` leaves fp16 untouched.
    """

    layers: int
    hidden: int
    heads: int
    inner: int
    vocab: int
    files: tuple[int, ...] = ()
    fills_fp32: bool = False

    @property
    def head(self) -> int:
        """The parameters of the embedding, and of the head."""
        return self.vocab * self.hidden

    @property
    def matrices(self) -> tuple[int, ...]:
        """The parameters of a block's matrices: query, key and value; dense; up; down."""
        square, across = self.hidden * self.hidden, self.hidden * self.inner
        return 3 * square, square, across, across

    @property
    def parameters(self) -> int:
        """Those of the frozen model: 6,173,286,400 of ChatGLM-6B. The head is tied to the embedding and counts once.

        A block (`GLMBlock`) has its matrices, a bias for each, and two norms. One more norm is behind the last.
        """
        biases = 5 * self.hidden + self.inner
        return self.head + self.layers * (sum(self.matrices) + biases + 4 * self.hidden) + 2 * self.hidden

    @property
    def checkpoint(self) -> int:
        """The bytes of the files, all of fp16."""
        return sum(self.files) or self.parameters * _FP16

    @classmethod
    def from_config(cls, data: bytes, files: Sequence[int] = ()) -> ModelShape:
        """Read the sizes from a model's `config.json`.

        Args:
            data: The file.
            files: As `ModelShape.files`.

        Raises:
            UsageError: It is not the configuration of such a model.
        """
        names = ("num_layers", "hidden_size", "num_attention_heads", "inner_hidden_size", "vocab_size")
        hint = "give the config.json of ChatGLM-6B, or of a model that is built like it"
        try:
            config = json.loads(data)
        except ValueError as error:
            raise UsageError(f"the model's configuration is no JSON: {error}", hint=hint) from error
        found = config if isinstance(config, dict) else {}
        wrong = [name for name in names if type(found.get(name)) is not int or found[name] < 1]
        if wrong:
            raise UsageError(f"the model's configuration has no positive whole number as {', '.join(wrong)}", hint=hint)
        layers, hidden, heads, inner, vocab = (found[name] for name in names)
        return cls(layers, hidden, heads, inner, vocab, files=tuple(files))


CHATGLM_6B = ModelShape(
    *(28, 4096, 32, 16384, 130528),
    # As they are on the model hub, with the head beside the embedding.
    files=(
        *(1_740_651_802, 1_879_731_432, 1_980_385_902, 1_913_294_120),
        *(1_879_722_289, 1_879_731_496, 1_074_103_621, 1_069_286_123),
    ),
)


@dataclass(frozen=True, slots=True)
class Workload:
    """What a rank trains; as upstream's `train.sh` has it, unless told otherwise.

    Attributes:
        dtype: Of the frozen weights and of autocast.
        source_length, target_length: Tokens of a question and of an answer; `main.py` pads every row to both.
        batch: Rows of a rank in one pass. The gradients of more passes need no more memory.
        pre_seq_len: Virtual tokens of the prefix.
        prefix_projection: Whether a small network is behind their table.
        checkpointing: Whether only the input of each block is kept, and the rest computed again, as `main.py` asks.
    """

    dtype: NeedDtype = "bf16"
    source_length: int = 64
    target_length: int = 64
    batch: int = 1
    pre_seq_len: int = 128
    prefix_projection: bool = False
    checkpointing: bool = True

    @property
    def tokens(self) -> int:
        """Tokens of a rank in one pass."""
        return self.batch * (self.source_length + self.target_length)

    @property
    def width(self) -> int:
        """Bytes of a number of `dtype`."""
        return 2 if self.dtype == "bf16" else _FP32


@dataclass(frozen=True, slots=True)
class Part:
    """A named amount of memory, in bytes."""

    title: str
    size: int


@dataclass(frozen=True, slots=True)
class RankNeed:
    """The memory that one rank needs, as resident memory is counted: with the pages of libraries that all ranks share.

    Attributes:
        steady: What stays from the first step to the last.
        step: What is there besides, at the worst moment of a step.
        loading: What is there at the worst moment before the first step.
        checkpoint: The bytes of the model's files, which the page cache keeps once for all ranks.
    """

    steady: tuple[Part, ...]
    step: tuple[Part, ...]
    loading: tuple[Part, ...]
    checkpoint: int

    @property
    def steady_bytes(self) -> int:
        """Between two steps."""
        return sum(part.size for part in self.steady)

    @property
    def training_bytes(self) -> int:
        """At the worst moment of a step."""
        return self.steady_bytes + sum(part.size for part in self.step)

    @property
    def loading_bytes(self) -> int:
        """At the worst moment before the first step."""
        return sum(part.size for part in self.loading)

    @property
    def peak_bytes(self) -> int:
        """At the worst moment of all."""
        return max(self.training_bytes, self.loading_bytes)

    @property
    def hot_bytes(self) -> int:
        """What each step reads: all but the runtime."""
        return self.training_bytes - self.steady[0].size


def rank_need(shape: ModelShape, work: Workload) -> RankNeed:
    """The memory of one rank that tunes the prefix of `shape`, one of several that talk through MPI.

    The prefix encoder stays in fp32 (`main.py`), as do its gradient, both moments of AdamW, and the bucket into which
    DistributedDataParallel copies the gradient (`gradient_as_bucket_view` is off).
    """
    trained = sum(_trained(shape, work))
    holes = _holes(shape) if work.dtype == "fp32" else 0
    runtime = (Part("Python, torch and transformers", _RUNTIME), Part("MPI", _MPI))
    steady = (
        *runtime,
        Part("frozen weights", shape.parameters * work.width),
        Part("holes where small fp16 matrices were", holes),
        Part("prefix encoder in fp32", trained * _FP32),
        Part("gradient of the prefix encoder", trained * _FP32),
        Part("bucket of DistributedDataParallel", trained * _FP32),
        Part("moments of AdamW", 2 * trained * _FP32),
    )
    step = _worst_moment(shape, work)
    # The kept inputs of the blocks lie between what blocks have freed, and pin it. The holes are used first.
    kept = min(_KEPT_BY_MALLOC + _block(shape, work), sum(part.size for part in step))
    return RankNeed(
        steady=steady,
        step=(*step, Part("freed and kept by malloc", max(0, kept - holes))),
        loading=(*runtime, *_loading(shape)),
        checkpoint=shape.checkpoint,
    )


def _trained(shape: ModelShape, work: Workload) -> tuple[int, int]:
    """The parameters of the `PrefixEncoder`: of its table, and of the network behind it."""
    size = 2 * shape.layers * shape.hidden
    if not work.prefix_projection:
        return work.pre_seq_len * size, 0
    return work.pre_seq_len * shape.hidden, (shape.hidden + 1) * (shape.hidden + size)


def _holes(shape: ModelShape) -> int:
    """The bytes of fp16 matrices that lay in the heap. Those that are cast to fp32 do not fit where they were."""
    sizes = (size * _FP16 for size in (shape.head, *shape.layers * shape.matrices))
    return sum(size for size in sizes if size < _MMAPPED)


def _loading(shape: ModelShape) -> tuple[Part, ...]:
    """The worst moment of `from_pretrained`, as transformers 4.28 does it without `low_cpu_mem_usage`.

    A checkpoint of one file is read before the model is made; of several, one at a time (`_load_pretrained_model`).
    Each is read whole and copied into the parameters, whose memory becomes resident as they are written. The head has
    memory of its own until `tie_weights`, which comes last. The casts that follow replace one parameter at a time and
    need less than this or than the steady weights.
    """
    untied = (shape.parameters + shape.head) * _FP16
    files = shape.files or (shape.checkpoint,)
    # The embedding is the first to be cast to fp16, when all else is fp32 yet.
    filled = shape.parameters * _FP32 + shape.head * _FP16 if shape.fills_fp32 else 0
    if len(files) == 1:
        moments = [(max(untied, filled), files[0])]
    else:
        written = (untied if filled else min(model, untied) for model in accumulate(files))
        moments = [(filled, 0), *zip(written, files, strict=True)]
    model, file = max(moments, key=sum)
    return Part("weights in fp16, the head apart", model), Part("file in hand", file)


def _block(shape: ModelShape, work: Workload) -> int:
    """The bytes of the forward pass of one block: some twenty tensors of the hidden width and eight of the inner one.

    The scores of the attention are there as they come, three times in fp32 (`attention_fn`), and as they go on.
    """
    scores = work.tokens * shape.heads * (work.source_length + work.target_length + work.pre_seq_len)
    tensors = work.tokens * (20 * shape.hidden + 8 * shape.inner)
    return tensors * work.width + scores * (2 * work.width + 3 * _FP32)


def _worst_moment(shape: ModelShape, work: Workload) -> tuple[Part, ...]:
    """What a step needs at the moment when it needs most.

    - The loss (`ChatGLMForConditionalGeneration.forward`): the logits in fp32, a contiguous copy shifted by one, and
      their log softmax; with bf16 the logits as they come and as they are handed on, too. Backward has three in fp32.
    - A block's forward pass, done again by the backward pass, and half of that for gradients.
    - The prefix: `get_prompt` makes keys and values of all blocks, and a mask for dropout, for each row. Their
      gradients are collected block by block, stacked, masked, cast to fp32 and summed to one that is added to the last.
    - AdamW: the root of the second moment of the largest tensor.
    """
    width, hidden, layers = work.width, shape.hidden, shape.layers
    table, network = _trained(shape, work)
    past = work.batch * work.pre_seq_len * 2 * layers * hidden
    prompt = Part("keys, values and dropout mask of the prefix", 2 * past * width)
    block = _block(shape, work)
    inputs = Part("inputs of the blocks", layers * work.tokens * hidden * width)
    if not work.checkpointing:
        inputs = Part("activations of the blocks", layers * block)
    logits = work.tokens * shape.vocab * (3 * _FP32 + (2 * width if work.dtype == "bf16" else 0))
    # Autocast keeps the network's weights in bf16 for as long as the pass lasts.
    cast = network * 2 if work.dtype == "bf16" else 0
    backward = block * 3 // 2 + past * width + cast
    arriving = past * (width + _FP32) + (table + network) * _FP32 + cast
    moments = (
        (inputs, prompt, Part("logits and what the loss makes of them", logits + cast)),
        (inputs, prompt, Part("one block with its gradients and those of the prefix", backward)),
        (prompt, Part("gradients on their way to the prefix encoder", arriving)),
        (Part("root of a moment of AdamW", max(table, network) * _FP32),),
    )
    return max(moments, key=lambda moment: sum(part.size for part in moment))
