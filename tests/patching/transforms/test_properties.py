"""What holds for every file that the smaller transforms accept, whatever stands around the code that they change."""

from __future__ import annotations

import ast
from textwrap import indent

from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from glmpatch.patching.model import AlreadyDone, Changed, Conflict, Dtype, Transform
from glmpatch.patching.transforms.checkpoint_resume import CheckpointResume
from glmpatch.patching.transforms.frozen_broadcast import FrozenBroadcast
from glmpatch.patching.transforms.precision import Precision
from glmpatch.patching.transforms.requirements import Requirements

# Code that no transform has any business with. Each starts with a mark by which it is found again.
NOISE = [
    "mark = 1",
    "mark()  # 训练 model.half()",
    '"""mark\nmodel = model.half().cuda()\n  trainer = Trainer(model=model)\n"""',
    'mark = "model.half()"; mark += "torch.load(rng_file)"',
    "mark = [\n    1,  # one\n\n  # two\n    2,\n]",
    "mark = np.half",
    "mark: str = f'{1 + 1}'",
    "mark = \\\n    0",
    "mark = lambda x: x.float()",
]
CASTS = [
    "model = model.half()",
    "model = model.half().cuda()",
    "model = model.cuda()  # 移动",
    "self.model = self.model.half().cuda().eval()",
    "model = AutoModel.from_pretrained(path).half().cuda()",
    "model = (\n    AutoModel.from_pretrained(path)  # 模型\n    .half()\n    # next\n    .cuda()\n)",
    "model.transformer.prefix_encoder.float().cuda()",
    "model.transformer.prefix_encoder.float()",
    "model = model.float()",
    "model = model.bfloat16()",
]
TRAINERS = ["trainer = Seq2SeqTrainer(model=model, args=args)", "trainer = Trainer(\n    model,\n    args,\n)"]
LOADS = ["state = torch.load(rng_file)", "state = dict(torch.load(\n    rng_file,\n))  # 状态"]


@st.composite
def blocks(draw: st.DrawFn, code: list[str], least: int, most: int) -> str:
    """Some of `code` among noise, under an `if`, in a function or in a method, indented by spaces or tabs."""
    chosen = draw(st.lists(st.sampled_from(code), min_size=least, max_size=most)) if code else []
    noise = draw(st.lists(st.sampled_from(NOISE), max_size=4))
    parts = draw(st.permutations(chosen + noise))
    text = "\n".join(parts or ["pass"]) + "\n"
    unit = draw(st.sampled_from(["    ", "\t", "  "]))
    for head in draw(st.lists(st.sampled_from(["if flag:", "def function():", "class Class:"]), max_size=2)):
        text = f"{head}\n{indent(text, unit)}"
    return text


@st.composite
def written(draw: st.DrawFn, text: str) -> bytes:
    """The bytes of `text` with some line ending, and with or without the last one."""
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    data = text.replace("\n", newline).encode()
    return data.removesuffix(newline.encode()) if draw(st.booleans()) else data


@st.composite
def files(draw: st.DrawFn, code: list[str], least: int = 0, most: int = 4) -> bytes:
    head = draw(
        st.sampled_from(["", "#!/usr/bin/env python\n# 头\n", '"""mark"""\nimport torch\nimport numpy as np\n'])
    )
    return draw(written(head + draw(blocks(code, least, most)) + "\n" + draw(blocks([], 0, 0))))


def check_accepted(transform: Transform, data: bytes) -> bytes:
    """Assert what holds for a file that is not refused, and give its new bytes back."""
    outcome = transform(data)
    assert not isinstance(outcome, Conflict)
    after = outcome.data if isinstance(outcome, Changed) else data
    ast.parse(after)
    assert isinstance(transform(after), AlreadyDone)
    kept = [line for line in data.splitlines(keepends=True) if b"mark" in line]
    assert [line for line in after.splitlines(keepends=True) if b"mark" in line] == kept
    assert after.endswith(b"\n") == data.endswith(b"\n")
    assert (b"\r\n" in data) == (b"\r\n" in after)
    assert after.count(b"\r\n") in {0, after.count(b"\n")}
    return after


def called(data: bytes) -> list[str]:
    """The names of all methods that are called."""
    nodes = ast.walk(ast.parse(data))
    return [node.func.attr for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]


@given(files(CASTS), st.sampled_from(["bf16", "fp32"]))
def test_precision(data: bytes, dtype: Dtype) -> None:
    before, after = called(data), called(check_accepted(Precision(dtype=dtype, must_cast=False), data))
    assert "half" not in after
    assert "cuda" not in after
    assert "bfloat16" not in after or dtype == "bf16"
    assert [name for name in after if name not in {"bfloat16", "float"}] == [
        name for name in before if name not in {"half", "cuda", "bfloat16", "float"}
    ]
    assert after.count("float") >= before.count("float")


@given(files(CASTS))
def test_bf16_then_fp32_is_fp32(data: bytes) -> None:
    bf16, fp32 = Precision(must_cast=False), Precision(dtype="fp32", must_cast=False)
    assert check_accepted(fp32, check_accepted(bf16, data)) == check_accepted(fp32, data)


@given(files([cast for cast in CASTS if "half" not in cast and "bfloat16" not in cast and "= model.cuda" not in cast]))
def test_a_training_script_without_a_cast_to_bf16_is_refused(data: bytes) -> None:
    has_cast = "from_pretrained" in called(data)
    assert isinstance(Precision()(data), Conflict) or has_cast


@given(files(TRAINERS, least=1, most=1))
def test_frozen_broadcast(data: bytes) -> None:
    after = check_accepted(FrozenBroadcast(), data)
    trainer = after.index(b"trainer = ", after.index(b"_ddp_params_and_buffers_to_ignore"))
    line = after.rindex(b"\n", 0, trainer) + 1 if b"\n" in after[:trainer] else 0
    inserted = len(after) - len(data)
    assert after[: line - inserted] + after[line:] == data


@given(st.data())
def test_checkpoint_resume(data: st.DataObject) -> None:
    draw = data.draw
    body = f"{draw(blocks(LOADS, 1, 1))}\nnp.random.set_state(state)\n"
    method = f"def _load_rng_state(self, checkpoint):\n{indent(body, '    ')}"
    text = f"mark = 1\nclass Trainer:\n{indent(method, '    ')}\n{draw(blocks([], 0, 0))}"
    ending = draw(st.sampled_from([b"\n", b"\r\n"]))
    before = text.encode().replace(b"\n", ending)
    after = check_accepted(CheckpointResume(), before)
    (allowed,) = (node for node in ast.walk(ast.parse(after)) if isinstance(node, ast.With))
    assert "torch.load" in ast.unparse(allowed)
    assert len(allowed.body) == 1


LINES = [
    "torch>=1.10",
    "transformers==4.27.1",
    "Transformers [torch] >=4 , <5 # 模型",
    "transformers",
    "numpy \\\n  >1",
    "numpy<3 ; python_version > '3'",
    "NumPy (<2)",
    "rouge_chinese==1.0.3",
    "# transformers",
    "",
    "   ",
    "--index-url https://example.org/numpy",
    "-r more.txt",
    "./helper.whl",
]
PINS = {"transformers": "==4.28.0", "numpy": "<2", "rouge-chinese": ""}


def required(data: bytes) -> dict[str, list[str]]:
    """The specifiers of each package, by an own and simpler reading of the lines."""
    found: dict[str, list[str]] = {}
    for line in data.decode().replace("\r\n", "\n").replace("\\\n", "").split("\n"):
        try:
            requirement = Requirement(line.partition("#")[0])
        except InvalidRequirement:
            continue
        found.setdefault(canonicalize_name(requirement.name), []).append(str(requirement.specifier))
    return found


@given(st.data())
def test_requirements(data: st.DataObject) -> None:
    lines = data.draw(st.lists(st.sampled_from(LINES), max_size=6))
    before = data.draw(written("".join(f"{line}\n" for line in lines)))
    outcome = Requirements(pins=PINS)(before)
    if isinstance(outcome, Conflict):
        assert outcome.expected.startswith("the package once")
        return
    after = outcome.data if isinstance(outcome, Changed) else before
    assert isinstance(Requirements(pins=PINS)(after), AlreadyDone)
    old, new = required(before), required(after)
    assert set(new["transformers"]) == {"==4.28.0"}
    assert set(new["numpy"]) == {"<2"}
    assert new["rouge-chinese"] == old.get("rouge-chinese", [""])
    assert new.get("torch") == old.get("torch")
    assert not before or after.endswith(b"\n") == before.endswith(b"\n")
    others = {"torch>=1.10", "# transformers", "--index-url https://example.org/numpy", "-r more.txt", "./helper.whl"}
    assert [line for line in after.decode().splitlines() if line in others] == [
        line for line in lines if line in others
    ]


@given(st.text(alphabet="ab1.=<>~![](),;'@#\\-_ \t\r\n:/模numpyhash", max_size=60))
def test_requirements_never_fall_over(text: str) -> None:
    outcome = Requirements(pins=PINS)(text.encode())
    if isinstance(outcome, Changed):
        assert isinstance(Requirements(pins=PINS)(outcome.data), AlreadyDone)
