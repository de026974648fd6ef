CKPT=ft-1e-4
CUDA_VISIBLE_DEVICES=0 python3 main.py \
    --do_predict \
    --model_name_or_path ./out/$CKPT/checkpoint-10  \
    --output_dir ./out/$CKPT \
    --fp16_full_eval
