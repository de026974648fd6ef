#!/bin/bash
GPUS=2
PORT=29501

python3 main.py \
    --do_train \
    --preprocessing_num_workers 8 \
    --logging_steps 10 \
    --no_cuda \
    --bf16

