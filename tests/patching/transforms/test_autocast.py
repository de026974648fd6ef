from __future__ import annotations

import pytest

from glmpatch.patching.transforms.autocast import CpuAutocast
from tests.support import check_refused, check_untouched

TRANSFORM = CpuAutocast()


def test_finds_the_cpu_branch() -> None:
    notices = check_untouched(
        TRANSFORM,
        """
        class Trainer:
            @staticmethod
            def other():
                return "def autocast_smart_context_manager(self): 训练"

            def autocast_smart_context_manager(self, cache_enabled=True):
                if self.use_cpu_amp:
                    return torch.cpu.amp.autocast(cache_enabled=cache_enabled, dtype=self.amp_dtype)
                return torch.cuda.amp.autocast()
        """,
    )
    assert notices == ()


@pytest.mark.parametrize(
    "code",
    [
        "from transformers import Trainer\nclass PrefixTrainer(Trainer):\n    pass\n",
        "from transformers.trainer import Trainer, logger\nclass PrefixTrainer(Trainer):\n    pass\n",
    ],
)
def test_an_inherited_autocast_is_said(code: str) -> None:
    [notice] = check_untouched(TRANSFORM, code)
    assert "inherits" in notice.message


GPU_ONLY = """
class Trainer:
    def first(self):
        return torch.cpu.amp.autocast()

    {decorator}
    {async_}def autocast_smart_context_manager(self):
        # torch.cpu.amp.autocast()
        return torch.cuda.amp.autocast("torch.cpu.amp.autocast()")
"""


@pytest.mark.parametrize("async_", ["", "async "])
@pytest.mark.parametrize("decorator", ["", "@property"])
def test_an_autocast_for_the_gpu_alone_is_refused(decorator: str, async_: str) -> None:
    code = GPU_ONLY.format(decorator=decorator, async_=async_)
    check_refused(TRANSFORM, code, line=6, found="torch.cpu.amp.autocast()")


@pytest.mark.parametrize(
    ("code", "line", "found"),
    [
        ("", None, "no such function"),
        ("# def autocast_smart_context_manager(self): torch.cpu.amp.autocast()\n", None, "no such function"),
        ("from elsewhere import Trainer\nclass PrefixTrainer(Trainer):\n    pass\n", None, "no such function"),
        ("x = (\n", 1, "parse"),
    ],
)
def test_refuses(code: str, line: int | None, found: str) -> None:
    check_refused(TRANSFORM, code, line=line, found=found)


def test_every_definition_must_have_the_branch() -> None:
    code = """
    if old:
        def autocast_smart_context_manager():
            return torch.cpu.amp.autocast()
    else:
        def autocast_smart_context_manager():
            return None
    """
    check_refused(TRANSFORM, code, line=5, found="def autocast_smart_context_manager")


def test_the_names_are_parameters() -> None:
    transform = CpuAutocast(function="enter", autocast="torch.autocast")
    check_untouched(transform, "def enter():\n    return torch.autocast('cpu')\n")


def test_odd_source_is_read_without_a_warning() -> None:
    check_untouched(TRANSFORM, 'PATTERN = "\\d"\ndef autocast_smart_context_manager():\n    torch.cpu.amp.autocast()\n')
