CKPT=ft-1e-4
python3 main.py \
    --do_predict \
    --model_name_or_path ./out/$CKPT/checkpoint-10  \
    --output_dir ./out/$CKPT \
    --bf16_full_eval \
    --no_cuda \
    --bf16
