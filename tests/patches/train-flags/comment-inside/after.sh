# 训练
python3 main.py \
    --do_train \
    --max_steps 10 \
    --no_cuda \
    --bf16 \
    # --max_steps 3000 \
    --save_steps 1000 \
    --quantization_bit 4
echo done
