"""Runs upstream's main.py, and writes for each rank what the trainer logs and a hash of the prefix after each step.

Started by a training script in the place of main.py: `python3 record.py main.py OPTION...`.
"""

from __future__ import annotations

import hashlib
import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path.cwd()))

import torch.distributed as dist
import trainer  # type: ignore[import-not-found] # upstream's own
from transformers import TrainerCallback


class Recorder(TrainerCallback):  # type: ignore[misc] # transformers has no types
    """Appends a line of JSON to `$RECORD.RANK` at each event."""

    def on_step_end(self, args: Any, state: Any, control: Any, *, model: Any, **_: Any) -> None:  # noqa: ARG002
        """The prefix as the optimizer has left it."""
        weight = model.transformer.prefix_encoder.embedding.weight.detach()
        digest = hashlib.sha256(weight.numpy().tobytes()).hexdigest()
        self.write({"step": state.global_step, "prefix": digest, "dtype": str(weight.dtype)})

    def on_log(self, args: Any, state: Any, control: Any, *, logs: dict[str, Any], **_: Any) -> None:  # noqa: ARG002
        """The loss, which every rank logs for itself."""
        if "loss" in logs:
            self.write({"step": state.global_step, "loss": logs["loss"]})

    def write(self, line: dict[str, Any]) -> None:
        """Append a line."""
        with Path(f"{os.environ['RECORD']}.{dist.get_rank()}").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    trainer.DEFAULT_CALLBACKS.append(Recorder)
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
