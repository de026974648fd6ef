#!/usr/bin/env python
# coding=utf-8
"""
Fine-tune a model on question and answer pairs.
"""
# 也可以换成自己的数据集

import logging
import sys

import numpy as np
import torch
import torch.distributed as dist

import transformers
from transformers import HfArgumentParser, Seq2SeqTrainingArguments

from arguments import DataArguments

logger = logging.getLogger(__name__)

def main():

    dist.init_process_group(backend="mpi")
    parser = HfArgumentParser((DataArguments, Seq2SeqTrainingArguments))
    if len(sys.argv) == 2:
        data_args, training_args = parser.parse_json_file(json_file=sys.argv[1])  # 配置文件
    else:
        data_args, training_args = parser.parse_args_into_dataclasses()
    logger.info("%s %s %s", np.__version__, torch.__version__, transformers.__version__)


def _mp_fn(index):
    main()


if __name__ == "__main__":
    main()
    from time import sleep
    sleep(1)  # the threads of the group must drop their last tensors before Python ends, or it aborts
    dist.destroy_process_group()
