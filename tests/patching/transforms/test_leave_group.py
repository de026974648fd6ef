from __future__ import annotations

import pytest

from glmpatch.patching.transforms.process_group import ProcessGroup
from tests.support import check_changed, check_untouched

HEAD = """\
import torch.distributed as dist


def main():
    dist.init_process_group(backend="mpi")
    parser = HfArgumentParser(TrainingArguments)
"""
PAUSE = [
    "from time import sleep",
    "sleep(1)  # the threads of the group must drop their last tensors before Python ends, or it aborts",
]


def leaving(indent: str) -> str:
    return "".join(f"{indent}{line}\n" for line in [*PAUSE, "dist.destroy_process_group()"])


GUARD = '\n\nif __name__ == "__main__":\n'
NO_PLACE = "no place found to call destroy_process_group() when the training is done"


@pytest.mark.parametrize(
    ("end", "indent"),
    [
        ("main()\n", ""),
        ("main(); print('done')  # 完\n", ""),
        (f"{GUARD}    main()\n", "    "),
        (f"{GUARD}\tmain()  # 完\n", "\t"),
        (f"{GUARD}    for seed in seeds:\n        main()\n", "    "),
        ("if __name__=='__main__':\n    args = 1\n    main()\n", "    "),
    ],
)
def test_the_group_is_left_at_the_end(end: str, indent: str) -> None:
    check_changed(ProcessGroup(), HEAD + end, HEAD + end + leaving(indent))


def test_what_follows_the_guard_stays_behind_it() -> None:
    before = f"{HEAD}{GUARD}    main()\n\n# vim: ft=python\n"
    check_changed(ProcessGroup(), before, before.replace("main()\n\n#", f"main()\n{leaving('    ')}\n#"))


def test_a_group_that_is_left_somewhere_is_left_once() -> None:
    assert check_untouched(ProcessGroup(), f"{HEAD}    dist.destroy_process_group()\n{GUARD}    main()\n") == ()


def test_a_comment_does_not_leave() -> None:
    code = f"{HEAD}    # dist.destroy_process_group()\n{GUARD}    main()\n"
    check_changed(ProcessGroup(), code, code + leaving("    "))


def test_the_function_is_imported_where_its_module_is_not() -> None:
    before = """\
        def main():
            import torch.distributed as dist
            dist.init_process_group("gloo")
            parser = HfArgumentParser(TrainingArguments)

        if __name__ == "__main__":
            main()
        """
    after = before.replace('"gloo"', 'backend="mpi"').replace(
        "    main()\n",
        "    main()\n"
        + "".join(f"            {line}\n" for line in PAUSE)
        + "            from torch.distributed import destroy_process_group\n"
        "            destroy_process_group()\n",
    )
    check_changed(ProcessGroup(), before, after)


@pytest.mark.parametrize(
    "end",
    [
        "",
        f"{GUARD}    sys.exit(main())\n",
        f"{GUARD}    raise SystemExit(main())\n",
        'if __name__ == "__main__": main()\n',
    ],
)
def test_no_place_is_told(end: str) -> None:
    (notice,) = check_untouched(ProcessGroup(), HEAD + end)
    assert notice.message == NO_PLACE
