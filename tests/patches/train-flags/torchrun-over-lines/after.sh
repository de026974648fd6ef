python3 ./main.py \
    --do_train \
    --bf16 \
    --no_cuda
