import os
import torch
import torch.distributed as dist
from transformers import HfArgumentParser, TrainingArguments

os.environ["TOKENIZERS_PARALLELISM"] = "false"
dist.init_process_group(backend="mpi")
parser = HfArgumentParser(TrainingArguments)
(training_args,) = parser.parse_args_into_dataclasses()
print(training_args, torch)
dist.destroy_process_group()
