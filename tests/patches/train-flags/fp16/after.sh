python3 main.py \
    --do_train \
    --bf16 \
    --seed 7 \
    --no_cuda
