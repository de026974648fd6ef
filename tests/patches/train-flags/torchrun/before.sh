#!/bin/bash
GPUS=2
PORT=29501

torchrun --standalone --nnodes=1 --nproc-per-node=$GPUS --master_port $PORT main.py \
    --do_train \
    --preprocessing_num_workers 8 \
    --logging_steps 10 \
    --quantization_bit 4

