python3 main.py \
    --do_train \
    --fp16 True \
    --fp16_opt_level O2 \
    --half_precision_backend cuda_amp \
    --seed 7
