import torch  # 张量
from transformers import HfArgumentParser, TrainingArguments

def main():
	if True:
		parser = HfArgumentParser(TrainingArguments)
	return parser.parse_args_into_dataclasses(), torch
