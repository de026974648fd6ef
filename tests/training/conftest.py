from __future__ import annotations

import importlib
import shutil
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from glmpatch.training import demo as demo_module
from glmpatch.training.demo import DemoOptions, DemoResult, run_demo
from glmpatch.training.launcher import Launcher, Mpirun, Torchrun
from glmpatch.training.progress import Progress
from tests.mpi_support import backend_folder, installation


def skip_without_training() -> None:
    """Skip where the `train` extra is missing. Nothing is imported: transformers reads its environment when it is."""
    if find_spec("transformers") is None or find_spec("torch") is None:
        pytest.skip("needs the `train` extra")


@pytest.fixture(scope="session")
def gloo_demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoResult, list[Progress], Path]:
    """A short demo over gloo, what it told while it went, and a copy of its model."""
    skip_without_training()
    root = tmp_path_factory.mktemp("gloo")
    result, told = run_short_demo(root / "demo", Torchrun())
    return result, told, shutil.copytree(root / "demo" / "model", root / "model")


@pytest.fixture(scope="session")
def model_folder(gloo_demo: tuple[DemoResult, list[Progress], Path]) -> Path:
    """The tiny model, as the demo builds it."""
    return gloo_demo[2]


@pytest.fixture(scope="session")
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.fixture(scope="session")
def hub(model_folder: Path) -> Iterator[Any]:
    """The module transformers, which reads the folders of its caches when it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(model_folder.parent / "cache" / "huggingface"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        with warnings.catch_warnings():
            # accelerate 0.18 imports pkg_resources, which setuptools has deprecated.
            warnings.filterwarnings("ignore", category=UserWarning, message="pkg_resources is deprecated")
            transformers = importlib.import_module("transformers")
            # Modules of transformers are imported when they are first used.
            importlib.import_module("transformers.modeling_utils")
        yield transformers


@pytest.fixture(scope="session")
def tokenizer(hub: Any, model_folder: Path) -> Any:
    return hub.AutoTokenizer.from_pretrained(model_folder, trust_remote_code=True)


@pytest.fixture
def model(hub: Any, model_folder: Path) -> Any:
    """The model as upstream loads it to tune its prefix."""
    config = hub.AutoConfig.from_pretrained(model_folder, trust_remote_code=True)
    config.pre_seq_len = 4
    return hub.AutoModel.from_pretrained(model_folder, config=config, trust_remote_code=True)


@pytest.fixture(scope="session")
def mpi_launcher() -> Iterator[Mpirun]:
    """Starts ranks that talk through Intel MPI. Their backend is on PYTHONPATH; this environment has none installed."""
    skip_without_training()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(backend_folder("intel")))
        yield Mpirun(installation("intel"))


@pytest.fixture(scope="session", params=["gloo", "mpi"])
def demo(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[DemoResult, list[Progress]]:
    """A short demo, and what it told while it went."""
    result, told, model = request.getfixturevalue("gloo_demo")
    if request.param == "gloo":
        return result, told
    with pytest.MonkeyPatch.context() as patch:
        # It would be the same, and takes longer to build than all the rest.
        patch.setattr(demo_module, "build_model_apart", lambda folder, _: shutil.copytree(model, folder))
        return run_short_demo(tmp_path_factory.mktemp("mpi") / "demo", request.getfixturevalue("mpi_launcher"))


def run_short_demo(folder: Path, launcher: Launcher) -> tuple[DemoResult, list[Progress]]:
    """A demo of a few steps, and what it told while it went."""
    told: list[Progress] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_module, "find_launcher", lambda _: launcher)
        result = run_demo(
            folder,
            options=DemoOptions(steps=40),
            on_event=lambda event: told.append(event) if isinstance(event, Progress) else None,
        )
    return result, told
