STEPS=100
RATE=5e-3

CUDA_VISIBLE_DEVICES=0 python3 main.py \
    --do_train \
    --train_file data/train.json \
    --output_dir out/pt-$STEPS-$RATE-dev \
    --max_steps $STEPS \
    --learning_rate $RATE \
    --quantization_bit 4
