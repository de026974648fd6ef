LR=2e-2
CUDA_VISIBLE_DEVICES=0 python3 main.py \
    --do_train \
    --learning_rate $LR \
    --quantization_bit 4
