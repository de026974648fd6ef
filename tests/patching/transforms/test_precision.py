from __future__ import annotations

from textwrap import indent

import pytest

from glmpatch.patching.model import AlreadyDone, Changed, Conflict, Dtype
from glmpatch.patching.transforms.precision import Precision
from tests.support import check_changed, check_refused, check_untouched, text

BF16 = Precision()
FP32 = Precision(dtype="fp32")
DEMO = Precision(must_cast=False)

CASTS = [
    ("model = model.half()", "model = model.bfloat16()"),
    ("model = model.half()  # fp16 权重", "model = model.bfloat16()  # fp16 权重"),
    ("model: Any = model.half()", "model: Any = model.bfloat16()"),
    ("model.half()", "model.bfloat16()"),
    ("model.half(); model.eval()", "model.bfloat16(); model.eval()"),
    ("self.model = self.model.half()", "self.model = self.model.bfloat16()"),
    ("base_model = base_model.half()", "base_model = base_model.bfloat16()"),
    ("model = model.half().cuda()", "model = model.bfloat16()"),
    ("model = model.cuda().half()", "model = model.bfloat16()"),
    ("model = model.half().cuda().eval()", "model = model.bfloat16().eval()"),
    ("model = model.eval().half().cuda()", "model = model.eval().bfloat16()"),
    ("model = model.bfloat16().cuda()", "model = model.bfloat16()"),
    ("model = (model.half()).cuda()", "model = (model.bfloat16())"),
    ("model = model . half ( ) . cuda ( )", "model = model . bfloat16 ( )"),
    ("model = model.cuda()", "model = model.bfloat16()"),
    ("model.cuda()", "model.bfloat16()"),
    ("model = model.cuda().cuda()", "model = model.bfloat16()"),
    ("model = AutoModel.from_pretrained(p).half().cuda()", "model = AutoModel.from_pretrained(p).bfloat16()"),
    ("model = AutoModel.from_pretrained(p).cuda()", "model = AutoModel.from_pretrained(p).bfloat16()"),
    ('model = X.from_pretrained(p).half().to("mps")', "model = X.from_pretrained(p).bfloat16()"),
    ('model = model.to( "cuda:1" ).eval()', "model = model.bfloat16().eval()"),
    ('model.to(device=torch.device("cuda"))', "model.bfloat16()"),
    ("net = AutoModel.from_pretrained(p).half()", "net = AutoModel.from_pretrained(p).bfloat16()"),
    (
        "net = AutoModel.from_pretrained(p)\nnet = net.half()",
        "net = AutoModel.from_pretrained(p)\nnet = net.bfloat16()",
    ),
    ("model = dispatch(model, device_map=m).half()", "model = dispatch(model, device_map=m).bfloat16()"),
    ("def f():\n    return X.from_pretrained(p).half().cuda()", "def f():\n    return X.from_pretrained(p).bfloat16()"),
    ("if flag:\n\tmodel = model.half()", "if flag:\n\tmodel = model.bfloat16()"),
    ("from common import model\nmodel = model.half()", "from common import model\nmodel = model.bfloat16()"),
]


@pytest.mark.parametrize(("before", "after"), CASTS)
def test_casts_the_model(before: str, after: str) -> None:
    check_changed(BF16, before + "\n", after + "\n")


@pytest.mark.parametrize(("before", "after"), CASTS)
def test_casts_the_model_to_fp32(before: str, after: str) -> None:
    check_changed(FP32, before + "\n", after.replace("bfloat16", "float") + "\n")


def test_the_trained_prefix_encoder_stays_in_fp32() -> None:
    check_changed(
        BF16,
        """
        if model_args.pre_seq_len is not None:
            # P-tuning v2
            model = model.half()
            model.transformer.prefix_encoder.float()
        else:
            # Finetune
            model = model.float()
        """,
        """
        if model_args.pre_seq_len is not None:
            # P-tuning v2
            model = model.bfloat16()
            model.transformer.prefix_encoder.float()
        else:
            # Finetune
            model = model.float()
        """,
    )


def test_float_stays_and_loses_cuda() -> None:
    check_changed(
        BF16,
        """
        model = model.half().cuda()
        model.transformer.prefix_encoder.float().cuda()
        scale = compute(x.cuda().float())
        """,
        """
        model = model.bfloat16()
        model.transformer.prefix_encoder.float()
        scale = compute(x.float())
        """,
    )


CHAINS_BEFORE = """\
model = (
    AutoModel.from_pretrained(path)  # 模型
    .half()  # small
    # then
    .cuda()
    .eval()  # done
)  # end
model = AutoModel.from_pretrained(path) \\
    .half() \\
    .cuda()
model = (model
    .half()
    .cuda())
model = (model.half()  # small
    .cuda())
"""
CHAINS_AFTER = """\
model = (
    AutoModel.from_pretrained(path)  # 模型
    .bfloat16()  # small
    # then
    .eval()  # done
)  # end
model = AutoModel.from_pretrained(path) \\
    .bfloat16()
model = (model
    .bfloat16())
model = (model.bfloat16()  # small
    )
"""


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("unit", ["    ", "\t"])
def test_keeps_the_lines_and_comments_of_a_chain(depth: int, unit: str) -> None:
    head = "".join(f"{unit * level}if x:\n" for level in range(depth))
    before, after = (head + indent(code, unit * depth) for code in (CHAINS_BEFORE, CHAINS_AFTER))
    check_changed(BF16, before, after)


NEAR_MISSES = [
    "# model = model.half().cuda()",
    'HELP = "model = model.half().cuda()"',
    '"""\nmodel.half()\n"""',
    "self.half = width / 2",
    "width = size.half",
    "model.half_width = 3",
    "import numpy as np\nx = np.half(3)",
    "import torch\nkinds = [torch.half, torch.float16, torch.cuda.HalfTensor]",
    "def half(x):\n    return x\nx = half(x)",
    "class Range:\n    def half(self):\n        return self",
    'value = trial.float("lr", 0, 1)',
    "loss = logits.float()",
    "x = x.bfloat16()",
    "model = model.to(device)",
    'x = x.to("cpu")',
    "x = x.to(torch.float16)",
    "model = model.quantize(8)",
    "torch.cuda.empty_cache()\ntorch.cuda.ipc_collect()",
    "if torch.cuda.is_available():\n    model = model.half().cuda()",
    "if torch.cuda.is_available() and not args.cpu:\n    model = model.to('cuda')\nelse:\n    model = model.float()",
    "if not torch.cuda.is_available():\n    pass\nelse:\n    x = x.cuda()",
    "if no_gpu:\n    pass\nelif torch.cuda.is_available():\n    fn(model.half)",
    "model = model.cuda() if torch.cuda.is_available() else model",
    "if torch.backends.mps.is_available():\n    model = model.to('mps')",
    "device = 'cuda' if torch.cuda.is_available() else 'cpu'\nmodel.to(device)",
]


@pytest.mark.parametrize("code", NEAR_MISSES)
def test_leaves_what_looks_alike(code: str) -> None:
    check_untouched(DEMO, code + "\n")


@pytest.mark.parametrize("code", NEAR_MISSES)
def test_finds_the_cast_beside_what_looks_alike(code: str) -> None:
    check_changed(BF16, f"{code}\nmodel = model.half()\n", f"{code}\nmodel = model.bfloat16()\n")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("for param in model.parameters(): param.half()", "assigned to the same model"),
        ("for param in model.parameters(): param.data = param.data.half()", "assigned to the same model"),
        ("model.transformer = model.transformer.half()", "assigned to the same model"),
        ("model.transformer.prefix_encoder.cuda()", "assigned to the same model"),
        ("small = model.half()", "assigned to the same model"),
        ("small = model = model.half()", "assigned to the same model"),
        ("tokenizer, model = load(), load().half()", "assigned to the same model"),
        ("models[0] = models[0].half()", "assigned to the same model"),
        ("wrap(model.half())", "assigned to the same model"),
        ("model = wrap(model.half())", "assigned to the same model"),
        ("model = model.half() if small else model", "assigned to the same model"),
        ("if (model := model.half()): pass", "assigned to the same model"),
        ("inputs = inputs.cuda()", "assigned to the same model"),
        ("import data\nitems = data.items.half()", "assigned to the same model"),
        ("model = model.half().custom().cuda()", "assigned to the same model"),
        ("model = model.half(True)", "without arguments"),
        ("model = model.cuda(0)", "without arguments"),
        ("model = model.half().cuda(device=0)", "without arguments"),
        ("model = model.half().float()", "one cast at a time"),
        ("model = model.quantize(4).half().cuda()", "quantize() needs CUDA"),
        ("model = model.half().quantize(4).cuda()", "quantize() needs CUDA"),
        ("apply(model, model.half)", "the model's .half called"),
        ("move = model.cuda", "the model's .cuda called"),
        ('inputs = inputs.to(torch.device("cuda"))', "assigned to the same model"),
        ('model = model.to("cuda", dtype=x)', "asks for CUDA"),
        ('DEVICE = "cuda"; model.to(DEVICE)', "asks for CUDA"),
        ("model = model.to(torch.float16)", "by .half()"),
        ("model = AutoModel.from_pretrained(p).to(dtype=torch.half)", "by .half()"),
        ("if not torch.cuda.is_available(): model.cuda(0)", "without arguments"),
        ("if torch.cuda.is_available() or force: model.cuda(0)", "without arguments"),
        ('label = f"{model.half()}"', "assigned to the same model"),
    ],
)
@pytest.mark.parametrize("transform", [BF16, FP32, DEMO])
def test_refuses_other_shapes(transform: Precision, line: str, expected: str) -> None:
    last = 2 + line.count("\n")
    check_refused(transform, f"model = model.half()\n{line}\n", line=last, found=expected)


def test_fp32_refuses_a_bf16_tensor() -> None:
    check_refused(FP32, "model = model.half()\nx = x.bfloat16()\n", line=2, found="x.bfloat16()")


def test_edits_inside_an_f_string_or_refuses() -> None:
    code = 'model = model.half()\nlabel = f"""{x}\n{x.float().cuda()}"""\n'
    outcome = BF16(text(code))
    if isinstance(outcome, Conflict):
        assert "f-strings" in outcome.expected
    else:
        assert isinstance(outcome, Changed)
        assert outcome.data.decode() == 'model = model.bfloat16()\nlabel = f"""{x}\n{x.float()}"""\n'


@pytest.mark.parametrize("transform", [BF16, FP32])
@pytest.mark.parametrize("code", ["", "x = 1\n", "model.transformer.prefix_encoder.float()\n", "# model.half()\n"])
def test_a_training_script_must_cast(transform: Precision, code: str) -> None:
    check_refused(transform, code, line=None, found="model = model.half()")


def test_a_tree_in_fp32_is_not_taken_for_bf16() -> None:
    check_refused(BF16, "model = model.float()\n", line=None, found="revert first")


def test_a_demo_says_what_it_did_not_do() -> None:
    [notice] = check_untouched(DEMO, "model = model.float()\n")
    assert "fp32" in notice.message
    [notice] = check_untouched(DEMO, "print('hello')\n")
    assert "no model" in notice.message


def test_bf16_becomes_fp32_but_not_back() -> None:
    check_changed(FP32, "model = model.bfloat16()\n", "model = model.float()\n")
    check_untouched(FP32, "model = model.float()\n")


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
def test_a_file_that_does_not_parse(dtype: Dtype) -> None:
    check_refused(Precision(dtype=dtype), "x = 1\nmodel = = 2\n", line=2, found="parse")


def test_odd_line_endings_keep_the_offsets() -> None:
    outcome = BF16(b'a = "\x0c"\rb = 2\r\nmodel = model.half()\n')
    assert isinstance(outcome, Changed)
    assert outcome.data == b'a = "\x0c"\rb = 2\r\nmodel = model.bfloat16()\n'
    assert isinstance(BF16(outcome.data), AlreadyDone)
