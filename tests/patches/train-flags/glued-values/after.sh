python3 main.py\
    --do_train\
    --learning_rate 1e-4\
    --max_steps 20 \
    --no_cuda \
    --bf16
