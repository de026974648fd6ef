CUDA_VISIBLE_DEVICES=0 python3 main.py\
    --do_train\
    --learning_rate 1e-4\
    --quantization_bit 4\
    --max_steps 20
