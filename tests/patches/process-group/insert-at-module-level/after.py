import os
import torch
import torch.distributed as dist
from transformers import HfArgumentParser, TrainingArguments

os.environ["TOKENIZERS_PARALLELISM"] = "false"
dist.init_process_group(backend="mpi")
parser = HfArgumentParser(TrainingArguments)
(training_args,) = parser.parse_args_into_dataclasses()
print(training_args, torch)
from time import sleep
sleep(1)  # the threads of the group must drop their last tensors before Python ends, or it aborts
dist.destroy_process_group()
