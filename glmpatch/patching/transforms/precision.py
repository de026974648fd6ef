"""The dtype that the code casts the model to: one for the CPU, in the place of `.half()` and of moves to a GPU."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar, TypeAlias

import libcst as cst

from glmpatch.patching.model import Dtype, Notice, Refusal, Replacement, Rewrite, Transform
from glmpatch.patching.syntax.chains import Chain, find_chains, method_name, remove, rename
from glmpatch.patching.syntax.imports import imported_names
from glmpatch.patching.syntax.parts import statements_with
from glmpatch.patching.syntax.python import PythonFile
from glmpatch.patching.syntax.search import Ancestors, find_nodes, plain_name, walk

Assignment: TypeAlias = cst.Assign | cst.AnnAssign

_METHODS: dict[Dtype, str] = {"bf16": "bfloat16", "fp32": "float"}
_CASTS = ("half", "bfloat16", "float")
# These hand the same model on: a chain goes through them.
_PASSING = ("eval", "train", "requires_grad_")
_MODEL = re.compile(r"(\w+\.)*(\w*_)?model", re.IGNORECASE)
_GPU = re.compile(r"(cuda|mps)(:\d+)?")
_GPU_CHECKS = ("torch.cuda.is_available", "torch.backends.mps.is_available")
_FP16 = ("torch.half", "torch.float16")


class Precision(Transform, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Cast the model to `dtype`, and leave it on the CPU.

    Code that runs only where `torch.cuda.is_available()` says so is left alone, and so is `torch.cuda` itself. A
    `.to("cuda")` or `.to("mps")` is read as `.cuda()`.

    Args:
        dtype: What `.half()`, `.bfloat16()` and a lone `.cuda()` on the model become. A `.float()` stays.
        must_cast: Whether a file that does not cast its model is a conflict.
    """

    name: ClassVar[str] = "precision"

    dtype: Dtype = "bf16"
    must_cast: bool = True

    def rewrite(self, data: bytes) -> Rewrite:
        """Edit each chain of calls that casts or moves."""
        file = statements_with(data, (*_CASTS, "cuda", "to", "from_pretrained", "import"))
        models = _Models(file)
        models.refuse_what_is_not_a_chain()
        replacements: list[Replacement] = []
        casts: set[str] = set()
        for chain in models.chains():
            if models.casts(chain):
                casts.add("float" if chain.named("float") else _METHODS[self.dtype])
            elif not self._may_stay(chain):
                file.refuse(chain.head, "the cast of a model, assigned to the same model")
            replacements += self._edit(file, chain)
        return Rewrite(tuple(replacements), self._judge(casts))

    def _may_stay(self, chain: Chain) -> bool:
        """Whether a chain on something else than a model means the same on the CPU, `.cuda()` taken away."""
        if chain.named("float"):
            return True
        return self.dtype == "bf16" and not chain.named("half", "cuda")

    def _edit(self, file: PythonFile, chain: Chain) -> list[Replacement]:
        casts, moves = chain.named(*_CASTS), chain.named("cuda")
        if not casts:
            casts, moves = moves[:1], moves[1:]
        target = _METHODS[self.dtype]
        renamed = [rename(file, link, target) for link in casts if link.method not in ("float", target)]
        return renamed + [remove(file, link) for link in moves]

    def _judge(self, casts: set[str]) -> tuple[Notice, ...]:
        """Refuse a file whose model does not end up in `dtype`, where it must."""
        target = _METHODS[self.dtype]
        if target in casts:
            return ()
        if not self.must_cast:
            return (Notice("the model stays in fp32" if casts else "no model is cast in this file"),)
        if casts:
            raise Refusal(
                f"a cast such as model.half(), to become model.{target}()",
                "model.float() alone",
                hint="where an earlier `apply --dtype fp32` did this, revert first",
            )
        raise Refusal("a cast such as model = model.half()", "none", hint="see what dtype this script trains in")


class _Models:
    """What a file does with its models."""

    def __init__(self, file: PythonFile) -> None:
        self._file = file
        self._loaded = self._assigned("from_pretrained", _loads)
        self._gpu_names = self._assigned("cuda", _is_gpu)
        self._modules = {name.name for name in imported_names(file) if isinstance(name.site.node, cst.Import)}

    def _assigned(self, word: str, is_wanted: Callable[[cst.BaseExpression], bool]) -> set[str]:
        """The plain names that are assigned a wanted value, in which `word` stands."""
        sites = find_nodes(self._file, (cst.Assign, cst.AnnAssign), [word])
        nodes = [site.node for site in sites if isinstance(site.node, Assignment)]
        return {_target(node) for node in nodes if node.value is not None and is_wanted(node.value)} - {""}

    def chains(self) -> list[Chain]:
        """The chains that cast or move something, whatever it is.

        Raises:
            Refusal: One has two casts, arguments, or a quantised model.
        """
        found = []
        for chain in find_chains(self._file, (*_CASTS, "cuda", *_PASSING), words=["to"], name=_name):
            is_function = plain_name(chain.root) in self._modules
            if chain.named(*_CASTS, "cuda") and not is_function and not _needs_gpu(chain.head, chain.ancestors):
                self._refuse_unclear(chain)
                found.append(chain)
        return found

    def _refuse_unclear(self, chain: Chain) -> None:
        steps = chain.named("half", "bfloat16", "cuda")
        if any(step.call.args and method_name(step.call) == step.method for step in steps):
            self._file.refuse(chain.head, "a cast or .cuda() without arguments")
        if steps and len(chain.named(*_CASTS)) > 1:
            self._file.refuse(chain.head, "one cast at a time")
        if steps and any(_names_quantize(site.node) for site in walk(chain.root)):
            self._file.refuse(chain.head, "a model that is not quantised: quantize() needs CUDA")

    def casts(self, chain: Chain) -> bool:
        """Whether the chain is on a model and its result is that model: assigned, returned, or dropped."""
        place = chain.ancestors[-1]
        name = plain_name(chain.root)
        if isinstance(place, Assignment):
            if name:
                return self._is_model(name) and name == _target(place)
            return isinstance(chain.root, cst.Call) and (_loads(chain.root) or self._is_model(_target(place)))
        if isinstance(place, cst.Return):
            return self._is_model(name) or _loads(chain.root)
        return isinstance(place, cst.Expr) and self._is_model(name)

    def refuse_what_is_not_a_chain(self) -> None:
        """Refuse `.to()` fp16 or a GPU with something else, and a model's `.half` or `.cuda` without a call."""
        for site in find_nodes(self._file, cst.Attribute, ["half", "cuda", "to"]):
            around = site.parents[-1]
            if _needs_gpu(site.node, site.parents):
                continue
            if not isinstance(around, cst.Call) or around.func is not site.node:
                self._refuse_uncalled(site.node, around)
            elif site.node.attr.value == "to":
                self._refuse_to(around, site.node.value)

    def _refuse_uncalled(self, node: cst.Attribute, around: cst.CSTNode) -> None:
        is_read = node.attr.value in ("half", "cuda") and not isinstance(around, cst.AssignTarget)
        if is_read and self._is_model(plain_name(node.value)):
            self._file.refuse(node, f"the model's .{node.attr.value} called")

    def _refuse_to(self, call: cst.Call, receiver: cst.BaseExpression) -> None:
        values = [argument.value for argument in call.args]
        to_fp16 = any(plain_name(value) in _FP16 for value in values)
        if to_fp16 and (self._is_model(plain_name(receiver)) or _loads(receiver)):
            self._file.refuse(call, "a cast of the model by .half()")
        if _name(call) == "to" and any(_is_gpu(value) or plain_name(value) in self._gpu_names for value in values):
            self._file.refuse(call, "no .to() that asks for CUDA")

    def _is_model(self, name: str) -> bool:
        return bool(name) and (name in self._loaded or _MODEL.fullmatch(name) is not None)


def _target(node: Assignment) -> str:
    """The plain name that is assigned, empty where it is something else or more than one."""
    if isinstance(node, cst.AnnAssign):
        return plain_name(node.target)
    return plain_name(node.targets[0].target) if len(node.targets) == 1 else ""


def _loads(node: cst.BaseExpression) -> bool:
    """Whether `node` is a call of `X.from_pretrained()`, with methods called on its result or not."""
    while isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute):
        if node.func.attr.value == "from_pretrained":
            return True
        node = node.func.value
    return False


def _names_quantize(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.Attribute) and node.attr.value == "quantize"


def _name(call: cst.Call) -> str:
    """The name of the method that is called: `.to("cuda")` is as good as `.cuda()`."""
    name = method_name(call)
    is_move = name == "to" and len(call.args) == 1 and _is_gpu(call.args[0].value)
    return "cuda" if is_move else name


def _is_gpu(node: cst.BaseExpression) -> bool:
    """Whether `node` is `"cuda"`, `"cuda:0"`, `"mps"`, or `torch.device()` of one."""
    if isinstance(node, cst.Call) and plain_name(node.func) == "torch.device" and node.args:
        node = node.args[0].value
    value = node.evaluated_value if isinstance(node, cst.SimpleString) else None
    return isinstance(value, str) and _GPU.fullmatch(value) is not None


def _needs_gpu(node: cst.CSTNode, ancestors: Ancestors) -> bool:
    """Whether `node` runs only where `torch.cuda.is_available()`, or that of MPS, said yes."""
    for outer, inner in pairwise((*ancestors, node)):
        if not isinstance(outer, cst.If | cst.IfExp):
            continue
        test: cst.BaseExpression = outer.test
        wanted: cst.CSTNode | None = outer.body
        if isinstance(test, cst.UnaryOperation) and isinstance(test.operator, cst.Not):
            test, wanted = test.expression, outer.orelse
        if inner is wanted and _asks_for_gpu(test):
            return True
    return False


def _asks_for_gpu(test: cst.BaseExpression) -> bool:
    """Whether a true `test` means that there is a GPU."""
    if isinstance(test, cst.BooleanOperation) and isinstance(test.operator, cst.And):
        return _asks_for_gpu(test.left) or _asks_for_gpu(test.right)
    return isinstance(test, cst.Call) and plain_name(test.func) in _GPU_CHECKS
