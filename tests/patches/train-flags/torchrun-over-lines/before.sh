CUDA_VISIBLE_DEVICES=0,1 \
torchrun \
    --nproc_per_node 2 \
    --rdzv-endpoint localhost:0 \
    ./main.py \
    --do_train \
    --fp16
