import torch  # 张量
import torch.distributed as dist
from transformers import HfArgumentParser, TrainingArguments

def main():
	dist.init_process_group(backend="mpi")
	if True:
		parser = HfArgumentParser(TrainingArguments)
	return parser.parse_args_into_dataclasses(), torch
