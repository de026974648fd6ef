"""Properties of every accepted file, checked by an oracle that shares no code with the transform."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from difflib import SequenceMatcher

from hypothesis import given
from hypothesis import strategies as st

from glmpatch.patching.model import AlreadyDone, Backend, Changed
from glmpatch.patching.transforms.process_group import ProcessGroup

DIST_IMPORTS = {
    "import torch.distributed as dist": "dist.init_process_group",
    "import torch.distributed as d": "d.init_process_group",
    "import torch.distributed": "torch.distributed.init_process_group",
    "from torch import distributed": "distributed.init_process_group",
    "from torch.distributed import init_process_group": "init_process_group",
    "from torch.distributed import barrier, init_process_group as ipg": "ipg",
}
OTHER_IMPORTS = [
    "import torch",
    "import torch  # 张量",
    "import torch.nn as nn",
    "import transformers",
    "from transformers import (\n    HfArgumentParser,\n    Seq2SeqTrainingArguments,  # 参数\n)",
    "import os, sys",
    "import json",
    "from trainer_seq2seq import Seq2SeqTrainer",
    "try:\n    import wandb\nexcept ImportError:\n    wandb = None",
    "dist = None",
    "# import torch.distributed as dist",
]
HEADERS = [
    "",
    "#!/usr/bin/env python\n# coding=utf-8\n",
    '"""\nFine-tune. 微调\n"""\n# Notes\n\n',
    "# -*- coding: utf-8 -*-\n\n",
]
FUTURES = ["", "from __future__ import annotations\n"]
MIDDLES = [
    "",
    '# dist.init_process_group(backend="nccl")\n',
    'TEXT = """\ndist.init_process_group()\n# no\n"""\n',
    "x = '中文'\n\n",
]
DOCSTRINGS = ["", '"""Train the model. 训练"""\n', "'''One.\n\n# two\n'''\n\n"]
COMMENTS = ["", "\n", "# 解析参数\n", "# one\n\n# two\n# three\n", '# dist.init_process_group("gloo")\n']
PARSES = [
    "parser = HfArgumentParser((A, B))\nargs = parser.parse_args_into_dataclasses()\n",
    "if a:\n    args = HfArgumentParser(A).parse_json_file(a)\nelse:\n    args = HfArgumentParser(A).parse_dict(b)\n",
    "args = parser.parse_args()\n",
]
ARGUMENTS = [
    '"nccl"',
    "backend='gloo'",
    'backend="mpi"',
    '"mpi"',
    '"ccl", rank=0, world_size=1',
    'init_method="env://"',
    "",
]
CHOICES = ["{a}\n", "if sys.platform == 'win32':\n    {a}\nelse:\n    {b}\n", "if not {g}.is_initialized():\n    {a}\n"]
TAILS = ["main()\n", "if __name__ == '__main__':\n    main()\n", ""]


@dataclass(frozen=True)
class Script:
    """A generated file, and whether it holds a call already."""

    data: bytes
    has_init: bool


def shift(code: str, indent: str) -> str:
    """`code` one level deeper, with every level written as `indent`."""
    lines = code.replace("    ", indent).splitlines(keepends=True)
    return "".join(indent + line if line.strip() else line for line in lines)


@st.composite
def scripts(draw: st.DrawFn) -> Script:
    """Files shaped like a training script's `main.py`."""
    spelling = draw(st.sampled_from(sorted(DIST_IMPORTS)))
    imports = draw(st.lists(st.sampled_from(OTHER_IMPORTS), unique=True, max_size=6))
    has_init = draw(st.booleans())
    if has_init:
        imports = [line for line in imports if line != "dist = None"]
    if has_init or draw(st.booleans()):
        imports.insert(draw(st.integers(0, len(imports))), spelling)
    body = draw(st.sampled_from(DOCSTRINGS)) + draw(st.sampled_from(COMMENTS))
    if has_init:
        a, b = (f"{DIST_IMPORTS[spelling]}({draw(st.sampled_from(ARGUMENTS))})" for _ in range(2))
        guard = DIST_IMPORTS[spelling].rpartition(".")[0]
        choices = CHOICES if guard else CHOICES[:2]
        body += draw(st.sampled_from(choices)).format(a=a, b=b, g=guard)
    body += draw(st.sampled_from(PARSES)) + "print(args)  # 完\n"
    indent = draw(st.sampled_from(["    ", "\t", "  "]))
    code = draw(st.sampled_from(HEADERS)) + draw(st.sampled_from(FUTURES)) + "".join(f"{line}\n" for line in imports)
    code += draw(st.sampled_from(MIDDLES)) + draw(st.sampled_from(["def main():\n", "def ptuning(**args):\n\n"]))
    code += shift(body, indent) + draw(st.sampled_from(TAILS))
    code = code.replace("\n", draw(st.sampled_from(["\n", "\r\n"])))
    return Script((code if draw(st.booleans()) else code.rstrip()).encode(), has_init)


backends = st.sampled_from(["mpi", "gloo", "ccl"])


def changed(script: Script, backend: Backend) -> bytes:
    """The bytes after the transform, which must accept the file."""
    outcome = ProcessGroup(backend=backend)(script.data)
    assert isinstance(outcome, Changed | AlreadyDone), outcome
    return outcome.data if isinstance(outcome, Changed) else script.data


def origins(module: ast.Module) -> dict[str, str]:
    """The dotted name behind each name that the top of the module imports."""
    found = {}
    for node in module.body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                package = alias.name.split(".")[0]
                found[alias.asname or package] = alias.name if alias.asname else package
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def init_calls(module: ast.Module) -> list[ast.Call]:
    """The calls of torch's function, found by spelling each call out and looking its first name up."""
    names = origins(module)
    calls = []
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            head, dot, rest = ast.unparse(node.func).partition(".")
            if names.get(head, head) + dot + rest == "torch.distributed.init_process_group":
                calls.append(node)
    return calls


def parse_calls(module: ast.Module) -> list[ast.Call]:
    calls = [node for node in ast.walk(module) if isinstance(node, ast.Call)]
    return [node for node in calls if isinstance(node.func, ast.Attribute) and node.func.attr.startswith("parse_")]


@given(script=scripts(), backend=backends)
def test_result_has_one_right_call_before_the_arguments_are_parsed(script: Script, backend: Backend) -> None:
    module = ast.parse(changed(script, backend).decode())
    (call,) = init_calls(module)
    given_backend = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "backend")]
    assert [ast.literal_eval(value) for value in given_backend] == [backend]
    assert [keyword.arg for keyword in call.keywords if keyword.arg != "backend"] == []
    (function,) = (node for node in module.body if isinstance(node, ast.FunctionDef))
    first = function.body[1] if ast.get_docstring(function) else function.body[0]
    assert call in ast.walk(first)
    assert all(call.lineno < parse.lineno for parse in parse_calls(module))


@given(script=scripts(), backend=backends)
def test_again_changes_nothing(script: Script, backend: Backend) -> None:
    again = ProcessGroup(backend=backend)(changed(script, backend))
    assert isinstance(again, AlreadyDone)


@given(script=scripts(), first=backends, second=backends)
def test_switching_there_and_back_gives_the_same_bytes(script: Script, first: Backend, second: Backend) -> None:
    there = changed(Script(changed(script, first), has_init=True), second)
    back = changed(Script(there, has_init=True), first)
    assert changed(Script(back, has_init=True), second) == there


@given(script=scripts(), backend=backends)
def test_only_lines_of_the_call_and_its_imports_change(script: Script, backend: Backend) -> None:
    before, after = script.data.splitlines(keepends=True), changed(script, backend).splitlines(keepends=True)
    assert script.data.endswith(b"\n") == after[-1].endswith(b"\n")
    for tag, old, old_end, new, new_end in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        unended = [line for line in before[old:old_end] if not line.endswith(b"\n")]
        assert script.has_init or tag == "insert" or unended == before[old:old_end]
        assert all(is_added(line, backend) or line.rstrip() in unended for line in after[new:new_end])
        assert all(is_init_or_choice(line) or line in unended for line in before[old:old_end])


def is_added(line: bytes, backend: Backend) -> bool:
    call = f'(backend="{backend}")'.encode()
    leaves = any(word in line for word in (b"destroy_process_group", b"import sleep", b"sleep(1)"))
    return leaves or call in line or line.startswith(b"import torch") or not line.strip()


def is_init_or_choice(line: bytes) -> bool:
    init = b"init_process_group" in line or line.strip().startswith(b"ipg(")
    return init or line.strip().startswith((b"if ", b"else"))


@given(script=scripts().filter(lambda script: not script.has_init), backend=backends)
def test_taking_the_new_lines_away_gives_the_bytes_back(script: Script, backend: Backend) -> None:
    after = changed(script, backend)
    before = script.data.splitlines()
    matcher = SequenceMatcher(None, before, after.splitlines(), autojunk=False)
    kept = [before[block.a : block.a + block.size] for block in matcher.get_matching_blocks()]
    assert [line for block in kept for line in block] == before
    assert after.count(b"\r\n") in {0, after.count(b"\n")}


@given(script=scripts())
def test_result_compiles_and_no_name_changes_its_meaning(script: Script) -> None:
    module = ast.parse(changed(script, "mpi").decode())
    compile(module, "main.py", "exec")
    names = origins(ast.parse(script.data.decode()))
    assert all(origins(module)[name] == origin for name, origin in names.items())
