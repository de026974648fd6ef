python3 main.py \
    --do_train \
    --seed 1 \
    --quantization_bit 4 \
    # --fp16

# CUDA_VISIBLE_DEVICES=0 python3 main.py --quantization_bit 8
