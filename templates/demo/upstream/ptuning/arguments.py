"""The options of main.py that are not the trainer's own."""
from dataclasses import dataclass, field
from typing import Optional


@dataclass
class ModelArguments:
    """Which model to tune, and how."""

    model_name_or_path: str = field(metadata={"help": "A folder, or a name on the model hub."})
    ptuning_checkpoint: Optional[str] = field(default=None, metadata={"help": "A tuned prefix to start from."})
    quantization_bit: Optional[int] = field(default=None, metadata={"help": "Bits per frozen weight: 4 or 8."})
    pre_seq_len: Optional[int] = field(default=None, metadata={"help": "Virtual tokens in the prefix."})
    prefix_projection: bool = field(default=False, metadata={"help": "Put a small network behind the prefix."})


@dataclass
class DataTrainingArguments:
    """Which data to tune on, and how to cut it."""

    train_file: Optional[str] = field(default=None, metadata={"help": "JSON lines."})
    validation_file: Optional[str] = field(default=None, metadata={"help": "JSON lines."})
    test_file: Optional[str] = field(default=None, metadata={"help": "JSON lines."})
    prompt_column: Optional[str] = field(default=None, metadata={"help": "The key of the question."})
    response_column: Optional[str] = field(default=None, metadata={"help": "The key of the answer."})
    history_column: Optional[str] = field(default=None, metadata={"help": "The key of the earlier turns."})
    overwrite_cache: bool = field(default=False, metadata={"help": "Prepare the data anew."})
    max_source_length: int = field(default=64, metadata={"help": "Tokens of the question."})
    max_target_length: int = field(default=64, metadata={"help": "Tokens of the answer."})
    max_predict_samples: Optional[int] = field(default=None, metadata={"help": "Predict only so many rows."})

    def __post_init__(self):
        if self.train_file is None and self.validation_file is None and self.test_file is None:
            raise ValueError("one of --train_file, --validation_file and --test_file is needed")
