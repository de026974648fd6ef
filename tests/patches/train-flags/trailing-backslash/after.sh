python3 main.py \
    --do_train \
    --no_cuda \
    --bf16 \

echo next
