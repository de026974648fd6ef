import os
import torch
from transformers import HfArgumentParser, TrainingArguments

os.environ["TOKENIZERS_PARALLELISM"] = "false"
parser = HfArgumentParser(TrainingArguments)
(training_args,) = parser.parse_args_into_dataclasses()
print(training_args, torch)
