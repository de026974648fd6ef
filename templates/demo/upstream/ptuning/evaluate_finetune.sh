CHECKPOINT="${OUTPUT:-output}/advert-ft-1e-4"
STEP="${STEPS:-200}"

CUDA_VISIBLE_DEVICES=0 python3 main.py \
    --do_predict \
    --test_file "${DATA:-data}/dev.json" \
    --prompt_column content \
    --response_column summary \
    --overwrite_cache \
    --model_name_or_path "$CHECKPOINT/checkpoint-$STEP"  \
    --output_dir "$CHECKPOINT" \
    --overwrite_output_dir \
    --max_source_length 32 \
    --max_target_length 64 \
    --max_predict_samples 16 \
    --per_device_eval_batch_size 8 \
    --predict_with_generate \
    --fp16_full_eval
