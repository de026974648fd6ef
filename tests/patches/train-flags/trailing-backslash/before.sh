python3 main.py \
    --do_train \
    --quantization_bit 4 \

echo next
