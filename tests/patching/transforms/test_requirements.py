from __future__ import annotations

import msgspec
import pytest

from glmpatch.patching.transforms.requirements import Requirements
from tests.support import check_changed, check_refused, check_untouched

TRANSFORM = Requirements(pins={"transformers": "==4.28.0", "numpy": "<2", "rouge-chinese": ""})
# Around a line under test: the other pinned packages, so that nothing is appended.
REST = "numpy<2\nrouge-chinese\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("transformers==4.27.1", "transformers==4.28.0"),
        ("transformers>=4.26,<5", "transformers==4.28.0"),
        ("transformers", "transformers==4.28.0"),
        ("transformers  # 模型", "transformers==4.28.0  # 模型"),
        ("transformers == 4.27.1", "transformers ==4.28.0"),
        ("  transformers >= 4.26 , < 5  ", "  transformers ==4.28.0  "),
        ("Transformers~=4.27", "Transformers==4.28.0"),
        ("transformers[torch]==4.27.1", "transformers[torch]==4.28.0"),
        ("transformers [ torch , sentencepiece ] >=4", "transformers [ torch , sentencepiece ] ==4.28.0"),
        ("transformers (>=4)", "transformers (==4.28.0)"),
        ("transformers>=4;python_version>'3.7'", "transformers==4.28.0;python_version>'3.7'"),
        ("transformers; python_version>'3.7'  # x", "transformers==4.28.0; python_version>'3.7'  # x"),
        ("transformers \\\n  >=4, \\\n  <5", "transformers \\\n  ==4.28.0"),
        ("transformers==4.27.1 \\\n  ; python_version > '3'", "transformers==4.28.0 \\\n  ; python_version > '3'"),
        ("transformers==4.27.1 --config-settings=x=y", "transformers==4.28.0 --config-settings=x=y"),
        ("transformers>=4\ntransformers<5", "transformers==4.28.0\ntransformers==4.28.0"),
    ],
)
def test_replaces_the_specifier_alone(before: str, after: str) -> None:
    check_changed(TRANSFORM, f"{before}\n{REST}", f"{after}\n{REST}")


@pytest.mark.parametrize(
    "code",
    [
        "transformers==4.28.0\nnumpy<2\nrouge_chinese\n",
        "transformers == 4.28.0\nNumPy < 2\nRouge.Chinese==1.0.3\n",
        "transformers==4.28.0;python_version>'3'\nnumpy<2\nrouge-chinese @ https://example.org/r.whl\n",
        "torch>=1.10  # numpy>2\n# transformers==4.27.1\ntransformers==4.28.0\nnumpy<2\nrouge-chinese\n",
        "-i https://example.org/transformers/\n--find-links numpy\ntransformers==4.28.0\nnumpy<2\nrouge-chinese\n",
        "transformers-stream-generator\nmy_numpy==3\ntransformers==4.28.0\nnumpy<2\nrouge-chinese\n",
    ],
)
def test_leaves_what_is_there_already(code: str) -> None:
    assert check_untouched(TRANSFORM, code) == ()


def test_appends_what_is_missing() -> None:
    check_changed(TRANSFORM, "torch>=1.10\n", "torch>=1.10\ntransformers==4.28.0\nnumpy<2\nrouge-chinese\n")
    check_changed(TRANSFORM, "# numpy\n", "# numpy\ntransformers==4.28.0\nnumpy<2\nrouge-chinese\n")


def test_fills_an_empty_file() -> None:
    outcome = TRANSFORM(b"")
    assert getattr(outcome, "data", None) == b"transformers==4.28.0\nnumpy<2\nrouge-chinese\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-r more.txt", "not looked at"),
        ("--constraint=more.txt", "not looked at"),
        ("./wheels/helper.whl", "left alone"),
        ("git+https://example.org/helper.git", "left alone"),
        ("helper==1.0 \\\n  --hash=sha256:00", "hashes"),
    ],
)
def test_says_what_it_does_not_look_at(line: str, message: str) -> None:
    [notice] = check_untouched(TRANSFORM, f"# first\n{line}\ntransformers==4.28.0\n{REST}")
    assert message in notice.message
    assert notice.line == 2


def test_an_editable_package_of_another_name_is_no_concern() -> None:
    assert check_untouched(TRANSFORM, f"-e git+https://example.org/x#egg=helper\ntransformers==4.28.0\n{REST}") == ()


@pytest.mark.parametrize(
    ("code", "line", "found"),
    [
        ("torch\ntransformers @ https://example.org/t.whl\n", 2, "not a URL"),
        ("git+https://example.org/huggingface/Transformers\n", 1, "transformers by its name"),
        ("torch\n-e git+https://example.org/x#egg=transformers\n", 2, "transformers by its name"),
        ("--editable ./rouge_chinese\n", 1, "rouge-chinese by its name"),
        ("./wheels/numpy-1.26.4-cp311-linux_x86_64.whl\n", 1, "numpy by its name"),
        ("transformers=4.27.1\n", 1, "transformers by its name"),
        ("<<<<<<< numpy\n", 1, "numpy by its name"),
        ("torch\ntransformers==4.27.1 --hash=sha256:00\n", 2, "without hashes"),
        ("transformers==4.27.1 \\\n    --hash=sha256:00 \\\n    --hash=sha256:01\n", 1, "without hashes"),
        ("numpy<3;python_version<'3.9'\n\nnumpy<3;python_version>='3.9'\n", 3, "the package once"),
        ("numpy<3\nnumpy<4;python_version>='3.9'\n", 2, "the package once"),
        ("torch \\", 1, "complete"),
        ("a\ntorch \\\n", 2, "complete"),
    ],
)
def test_refuses(code: str, line: int, found: str) -> None:
    check_refused(TRANSFORM, code, line=line, found=found)


def test_a_comment_that_ends_in_a_backslash_does_not_go_on() -> None:
    check_changed(TRANSFORM, f"# C:\\\ntransformers\n{REST}", f"# C:\\\ntransformers==4.28.0\n{REST}")


def test_a_pin_must_be_a_specifier() -> None:
    with pytest.raises(msgspec.ValidationError, match="Invalid specifier"):
        msgspec.convert({"pins": {"transformers": "4.28.0"}}, Requirements)
