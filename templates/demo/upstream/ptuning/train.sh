PRE_SEQ_LEN=32
LR=5e-2
STEPS="${STEPS:-200}"

CUDA_VISIBLE_DEVICES=0 python3 main.py \
    --do_train \
    --train_file "${DATA:-data}/train.json" \
    --prompt_column content \
    --response_column summary \
    --overwrite_cache \
    --model_name_or_path "${MODEL:-THUDM/chatglm-6b}" \
    --output_dir "${OUTPUT:-output}/advert-pt-$PRE_SEQ_LEN-$LR" \
    --overwrite_output_dir \
    --max_source_length 32 \
    --max_target_length 64 \
    --per_device_train_batch_size 8 \
    --per_device_eval_batch_size 8 \
    --gradient_accumulation_steps 1 \
    --predict_with_generate \
    --max_steps "$STEPS" \
    --logging_steps 5 \
    --save_steps "$STEPS" \
    --learning_rate $LR \
    --pre_seq_len $PRE_SEQ_LEN \
    --quantization_bit 4
