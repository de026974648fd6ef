from __future__ import annotations

from pathlib import Path
from textwrap import indent

import pytest

from glmpatch.patching.model import AlreadyDone, Backend, Changed, Notice
from glmpatch.patching.transforms.process_group import ProcessGroup
from tests.support import check_changed, check_refused, check_untouched

CASES = Path(__file__).parents[2] / "patches" / "process-group"
IMPORTS = """
import torch.distributed as dist
from transformers import HfArgumentParser, TrainingArguments

"""
PARSE = """
parser = HfArgumentParser(TrainingArguments)
args = parser.parse_args_into_dataclasses()
"""

LEAVE = (
    "from time import sleep\n"
    "sleep(1)  # the threads of the group must drop their last tensors before Python ends, or it aborts\n"
    "dist.destroy_process_group()\n"
)
LEAVING = f'\nif __name__ == "__main__":\n    main()\n{indent(LEAVE, "    ")}'


def script(init: str, parse: str = PARSE) -> str:
    """A script whose main() runs `init` from line 5 on, and then parses."""
    return f"{IMPORTS}def main():\n{indent((init + parse).strip(), '    ')}\n"


def read(path: Path) -> str:
    return path.read_bytes().decode()


@pytest.mark.parametrize("case", sorted(path.name for path in CASES.iterdir()))
def test_golden_case(case: str) -> None:
    check_changed(ProcessGroup(), read(CASES / case / "before.py"), read(CASES / case / "after.py"))


@pytest.mark.parametrize(
    "call",
    [
        'dist.init_process_group(backend="mpi")',
        'dist.init_process_group("mpi")  # already',
        "dist . init_process_group( 'MPI' , timeout=None )",
        'if not dist.is_initialized():\n    dist.init_process_group(\n        backend="mpi",  # as asked\n    )',
        'if not dist.is_initialized(): dist.init_process_group(backend="mpi")',
        'import torch.distributed as comm\ncomm.init_process_group("mpi")',
    ],
)
def test_right_call_stays(call: str) -> None:
    check_untouched(ProcessGroup(), script(call))


def test_backend_switches_back_and_forth() -> None:
    start = script('dist.init_process_group(backend="mpi")  # 进程组').encode()
    data = start
    backends: list[Backend] = ["gloo", "ccl", "mpi"]
    for backend in backends:
        outcome = ProcessGroup(backend=backend)(data)
        assert isinstance(outcome, Changed)
        data = outcome.data
        assert f'(backend="{backend}")'.encode() in data
    assert data == start


def test_inserted_call_switches_too() -> None:
    inserted = ProcessGroup()(script("").encode())
    assert isinstance(inserted, Changed)
    switched = ProcessGroup(backend="gloo")(inserted.data)
    assert switched == ProcessGroup(backend="gloo")(script("").encode())


def test_dropped_arguments_are_told() -> None:
    before = script('dist.init_process_group("nccl", rank=0, world_size=2, group_name="a")')
    notices = check_changed(ProcessGroup(), before, script('dist.init_process_group(backend="mpi")'))
    assert notices[0] == Notice("dropped from init_process_group(): world_size, rank, group_name", 5)


def test_ccl_without_its_bindings_is_told() -> None:
    code = script('dist.init_process_group("ccl")') + LEAVING
    (notice,) = check_untouched(ProcessGroup(backend="ccl"), code)
    assert "oneccl_bindings_for_pytorch" in notice.message
    assert check_untouched(ProcessGroup(backend="ccl"), "import oneccl_bindings_for_pytorch" + code) == ()


def test_timeout_of_any_shape_is_kept() -> None:
    before = script('dist.init_process_group("gloo", "env://", (a\n    or b))')
    after = script('dist.init_process_group(backend="mpi", timeout=(a\n    or b))')
    check_changed(ProcessGroup(), before, after)


@pytest.mark.parametrize(
    ("init", "line", "found"),
    [
        ('for _ in range(1):\n    dist.init_process_group("nccl")', 6, "`for _ in range(1):` around it, on line 5"),
        ('while True:\n    dist.init_process_group("nccl")', 6, "around it"),
        ('try:\n    dist.init_process_group("nccl")\nfinally:\n    pass', 6, "`try:` around it"),
        ('try:\n    pass\nexcept OSError:\n    dist.init_process_group("nccl")', 8, "`try:` around it"),
        ('with open("a"):\n    dist.init_process_group("nccl")', 6, "around it"),
        ('match 1:\n    case 1:\n        dist.init_process_group("nccl")', 7, "around it"),
        ('if "RANK" in os.environ:\n    dist.init_process_group("nccl")', 6, "around it, on line 5"),
        ('if a:\n    dist.init_process_group("nccl")\nelse:\n    pass', 6, "around it"),
        ('if a:\n    pass\nelse:\n    dist.init_process_group("nccl")', 8, "around it"),
        ('if not dist.is_initialized():\n    pass\nelse:\n    dist.init_process_group("nccl")', 8, "around it"),
        ('if dist.is_initialized():\n    dist.init_process_group("nccl")', 6, "around it"),
        ('if a and not dist.is_initialized():\n    dist.init_process_group("nccl")', 6, "around it"),
        ('if a:\n    dist.init_process_group("nccl")\nelif b:\n    dist.init_process_group("gloo")', 8, "lines 6, 8"),
        (
            'if a:\n    print()\n    dist.init_process_group("nccl")\nelse:\n    dist.init_process_group("gloo")',
            9,
            "nothing else",
        ),
        ('dist.init_process_group("nccl")\ndist.init_process_group("gloo")', 6, "calls on lines 5, 6"),
        ('x = dist.init_process_group("nccl")', 5, "a statement of its own"),
        ('a and dist.init_process_group("nccl")', 5, "a statement of its own"),
        ('dist.init_process_group("nccl") if a else None', 5, "a statement of its own"),
        ('f = lambda: dist.init_process_group("nccl")', 5, "a statement of its own"),
        ('return dist.init_process_group("nccl")', 5, "a statement of its own"),
        ("dist.init_process_group(backend)", 5, "written as a string"),
        ("dist.init_process_group(dist.Backend.NCCL)", 5, "written as a string"),
        ('dist.init_process_group(f"{a}")', 5, "written as a string"),
        ('dist.init_process_group("gloo" if a else "nccl")', 5, "written as a string"),
        ('dist.init_process_group(b"gloo")', 5, "written as a string"),
        ('dist.init_process_group("hccl")', 5, "one of the backends ccl, gloo, mpi, nccl"),
        ("dist.init_process_group(*a)", 5, "arguments among"),
        ("dist.init_process_group(**a)", 5, "arguments among"),
        ('dist.init_process_group("nccl", colour=1)', 5, "arguments among"),
        ("dist.init_process_group(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)", 5, "arguments among"),
        ('dist.init_process_group(\n    "nccl",  # fast\n)', 6, "no comment inside"),
        ("init = dist.init_process_group", 5, "not handed on"),
        ('partial(dist.init_process_group, "nccl")()', 5, "not handed on"),
        ('init_process_group("nccl")', 5, "surely"),
        ('get().init_process_group("nccl")', 5, "surely"),
        ('dist = object()\ndist.init_process_group("nccl")', 6, "surely"),
        ('comm = dist\ncomm.init_process_group("nccl")', 6, "surely"),
    ],
)
def test_refuses_init(init: str, line: int, found: str) -> None:
    check_refused(ProcessGroup(), script(init), line=line, found=found)


@pytest.mark.parametrize(
    ("choice", "line", "found"),
    [
        ("if a:  # why\n    {nccl}\nelse:\n    {gloo}", 5, "no comment inside"),
        ("if a:\n    {nccl}\n# why\nelse:\n    {gloo}", 7, "no comment inside"),
        ("if start():\n    {nccl}\nelse:\n    {gloo}", 5, "only asks"),
        ("if (b := a):\n    {nccl}\nelse:\n    {gloo}", 5, "only asks"),
        ("if a:\n    {nccl}\nelif start():\n    {gloo}\nelse:\n    {gloo}", 7, "only asks"),
        ('if a:\n    dist.init_process_group("nccl", timeout=b)\nelse:\n    {gloo}', 8, "the same timeout"),
        ("if c:\n    if a:\n        {nccl}\n    else:\n        {gloo}", 7, "`if c:` around it"),
    ],
)
def test_refuses_choice(choice: str, line: int, found: str) -> None:
    calls = {name: f'dist.init_process_group("{name}")' for name in ("nccl", "gloo")}
    check_refused(ProcessGroup(), script(choice.format(**calls)), line=line, found=found)


def test_refuses_init_after_parsing() -> None:
    late = script(PARSE + 'if args.distributed:\n    dist.init_process_group("nccl")')
    check_refused(ProcessGroup(), late, line=8, found="before the arguments are parsed (line 6)")


def test_refuses_init_between_calls_that_parse() -> None:
    parse = "if a:\n    args = parser.parse_json_file(a)\nelse:\n    args = parser.parse_args_into_dataclasses()"
    late = script(parse + '\ndist.init_process_group("nccl")')
    check_refused(ProcessGroup(), late, line=9, found="too late")


def test_refuses_init_in_a_helper() -> None:
    helper = '\ndef setup():\n    dist.init_process_group("nccl")\n'
    conflict = check_refused(ProcessGroup(), script("setup()") + helper, line=10, found="line 7")
    assert conflict.hint == "move it there from setup()"


def test_refuses_init_around_the_function() -> None:
    code = IMPORTS + 'def outer():\n    dist.init_process_group("nccl")\n    def main():\n        HfArgumentParser(1)\n'
    check_refused(ProcessGroup(), code, line=5, found="from outer()")


@pytest.mark.parametrize(
    ("below", "line"),
    [
        ('main()\ndist.init_process_group("nccl")', 9),
        ('if __name__ == "__main__":\n    main()\n    dist.init_process_group("nccl")', 10),
        ('if __name__ == "__main__":\n    dist.init_process_group("nccl")\n    run()', 9),
        ('dist.init_process_group("nccl")', 8),
    ],
)
def test_refuses_init_at_module_level_after_main_may_have_run(below: str, line: int) -> None:
    check_refused(ProcessGroup(), script("") + "\n" + below + "\n", line=line, found="too late")


@pytest.mark.parametrize(
    ("above", "line", "found"),
    [
        ('if a:\n    dist.init_process_group("nccl")\n', 5, "`if a:` around it"),
        ('class A:\n    dist.init_process_group("nccl")\n', 5, "`class A:` around it"),
        ('if __name__ == "__main__":\n    pass\nelse:\n    dist.init_process_group("nccl")\n', 7, "around it"),
    ],
)
def test_refuses_init_at_module_level_under_a_condition(above: str, line: int, found: str) -> None:
    check_refused(ProcessGroup(), IMPORTS + above + script("").removeprefix(IMPORTS), line=line, found=found)


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("from torch.distributed import *\ndef main():\n    init_process_group('nccl')\n    p.parse_args()\n", 3),
        ("def main(dist):\n    dist.init_process_group('nccl')\n    p.parse_args()\n", 2),
        ("import a as dist\nimport torch.distributed as dist\ndist.init_process_group('nccl')\np.parse_args()\n", 3),
        ("import torch.distributed as dist\nfor dist in ():\n    pass\ndist.init_process_group()\np.parse_args()\n", 4),
        (
            "import torch.distributed as d\ndef f():\n    global d\n    d = 1\nd.init_process_group()\np.parse_args()",
            5,
        ),
        ("def init_process_group():\n    pass\ninit_process_group()\np.parse_args()\n", 3),
    ],
)
def test_refuses_a_name_that_may_be_something_else(code: str, line: int) -> None:
    check_refused(ProcessGroup(), code, line=line, found="surely")


@pytest.mark.parametrize("call", ["deepspeed.init_distributed()", "Accelerator(cpu=True)"])
def test_refuses_other_ways_to_make_the_group(call: str) -> None:
    code = "import deepspeed\nfrom accelerate import Accelerator\n" + script(call).lstrip()
    check_refused(ProcessGroup(), code, line=7, found="only init_process_group()")


def test_refuses_a_file_that_does_not_parse_arguments() -> None:
    code = "import torch\n\ndef main():\n    # HfArgumentParser()\n    print('parse_args()')\n"
    check_refused(ProcessGroup(), code, line=None, found="no call that does")


def test_refuses_two_functions_that_parse() -> None:
    code = "def train():\n    HfArgumentParser(A)\n\ndef evaluate():\n    HfArgumentParser(B)\n"
    check_refused(ProcessGroup(), code, line=5, found="lines 2, 5")


def test_refuses_two_functions_that_parse_and_call_each_other() -> None:
    code = "def a():\n    HfArgumentParser(A)\n    b()\n\ndef b():\n    HfArgumentParser(B)\n    a()\n"
    check_refused(ProcessGroup(), code, line=6, found="lines 2, 6")


@pytest.mark.parametrize(
    "others",
    [
        "def show():\n    argparse.ArgumentParser().parse_args()\n",
        "def evaluate():\n    HfArgumentParser(TrainingArguments)\n\nmain()\n",
    ],
)
def test_finds_the_entry_among_several_functions(others: str) -> None:
    after = script('dist.init_process_group(backend="mpi")') + others
    leave = LEAVE if others.endswith("\nmain()\n") else ""
    check_changed(ProcessGroup(), script("") + others, after + leave)


def test_refuses_a_function_on_one_line() -> None:
    code = "import torch\ndef main(): return HfArgumentParser(A).parse_args_into_dataclasses()\n"
    check_refused(ProcessGroup(), code, line=2, found="lines of their own")


def test_refuses_a_main_guard_on_one_line() -> None:
    code = "import torch\nif __name__ == '__main__': p.parse_args()\n"
    check_refused(ProcessGroup(), code, line=2, found="lines of their own")


def test_refuses_a_function_with_a_docstring_alone() -> None:
    check_refused(ProcessGroup(), 'def main(a=p.parse_args()):\n    "docs"\n', line=1, found="lines of their own")


def test_refuses_where_no_name_is_free() -> None:
    code = "from os import *\n\ndef main():\n    HfArgumentParser(A)\n"
    check_refused(ProcessGroup(), code, line=4, found="may be, something else")


@pytest.mark.parametrize(
    ("above", "inside"),
    [
        ("try:\n    import torch.distributed as dist\nexcept ImportError:\n    dist = None\n", ""),
        ("", "    dist = 3\n"),
        ("from helpers import *\n", ""),
        ("def f():\n    global dist\n    dist = 1\n", ""),
    ],
)
def test_spells_the_name_out_where_dist_may_be_something_else(above: str, inside: str) -> None:
    body = f"{inside}    HfArgumentParser(A).parse_args_into_dataclasses()\n"
    call = '    torch.distributed.init_process_group(backend="mpi")\n'
    check_changed(
        ProcessGroup(),
        f"import torch\n{above}\ndef main():\n{body}",
        f"import torch\nimport torch.distributed\n{above}\ndef main():\n{call}{body}",
    )


@pytest.mark.parametrize("local", ["import torch.distributed as dist", "import torch", "import torch.nn as dist"])
def test_never_reads_a_local_name_before_it_is_bound(local: str) -> None:
    """An import in the function makes its name local, and a call above it would find it unbound."""
    code = f"import torch\nimport torch.distributed\n\ndef main():\n    p.parse_args()\n    {local}\n"
    outcome = ProcessGroup()(code.encode())
    assert isinstance(outcome, Changed)
    called = "dist" if local == "import torch" else "torch.distributed"
    assert f'    {called}.init_process_group(backend="mpi")\n    p.'.encode() in outcome.data


def test_refuses_where_both_names_are_local() -> None:
    code = "import torch\n\ndef main():\n    p.parse_args()\n    import torch\n    dist = 1\n"
    check_refused(ProcessGroup(), code, line=4, found="free to stand for torch's modules")


def test_uses_dist_where_torch_is_something_else() -> None:
    before = "import numpy as torch\n\ndef main():\n    p.parse_args()\n"
    call = '    dist.init_process_group(backend="mpi")\n'
    after = f"import numpy as torch\nimport torch.distributed as dist\n\ndef main():\n{call}    p.parse_args()\n"
    check_changed(ProcessGroup(), before, after)


def test_uses_the_full_name_that_is_imported() -> None:
    before = "import torch.distributed\n\ndef main():\n    p.parse_args()\n"
    call = '    torch.distributed.init_process_group(backend="mpi")\n'
    check_changed(ProcessGroup(), before, before.replace("    p.", call + "    p."))


def test_adds_imports_below_the_header_of_a_file_without_any() -> None:
    imports = "import torch\nimport torch.distributed as dist\n\n"
    call = 'dist.init_process_group(backend="mpi")\n'
    check_changed(
        ProcessGroup(), "# coding=utf-8\np.parse_args()\n", f"# coding=utf-8\n{imports}{call}p.parse_args()\n{LEAVE}"
    )
    documented = '"""Docs."""\n# parse\np.parse_args()\n'
    check_changed(ProcessGroup(), documented, documented.replace("# parse", f"{imports}{call}# parse") + LEAVE)


def test_goes_above_decorators() -> None:
    before = "import torch\n\ndef main():\n    # timed\n    @timed\n    def f():\n        pass\n    p.parse_args()\n"
    call = '    dist.init_process_group(backend="mpi")\n'
    after = before.replace("torch\n", "torch\nimport torch.distributed as dist\n").replace(
        "    # timed", call + "    # timed"
    )
    check_changed(ProcessGroup(), before, after)


def test_result_of_an_odd_but_valid_file_is_stable() -> None:
    code = "import torch\r\ndef main():\n\r\n\t# 注释\r\n\tp.parse_args()"
    outcome = ProcessGroup()(code.encode())
    assert isinstance(outcome, Changed)
    assert isinstance(ProcessGroup()(outcome.data), AlreadyDone)
    assert outcome.data.endswith('\tdist.init_process_group(backend="mpi")\r\n\t# 注释\r\n\tp.parse_args()'.encode())


@pytest.mark.parametrize(
    "code",
    [
        'def f(a=dist.init_process_group("nccl")):\n    pass\n',
        '@f(dist.init_process_group("nccl"))\nclass A:\n    pass\n',
        'x: dist.init_process_group("nccl") = 1\n',
    ],
)
def test_refuses_a_call_at_the_edge_of_a_definition(code: str) -> None:
    """Places that are easily overlooked, since they belong to the definition but lie outside its body."""
    check_refused(ProcessGroup(), script("") + code, line=7, found="a statement of its own")
