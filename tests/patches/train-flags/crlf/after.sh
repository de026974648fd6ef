LR=2e-2
python3 main.py \
    --do_train \
    --learning_rate $LR \
    --no_cuda \
    --bf16
