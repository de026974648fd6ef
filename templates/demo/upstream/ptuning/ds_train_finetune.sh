LR=1e-4
MASTER_PORT=29500

deepspeed --num_gpus=4 --master_port "$MASTER_PORT" main.py \
    --deepspeed deepspeed.json \
    --do_train \
    --train_file "${DATA:-data}/train.json" \
    --prompt_column content \
    --response_column summary \
    --overwrite_cache \
    --model_name_or_path "${MODEL:-THUDM/chatglm-6b}" \
    --output_dir "${OUTPUT:-output}/advert-ft-$LR" \
    --overwrite_output_dir \
    --max_source_length 32 \
    --max_target_length 64 \
    --per_device_train_batch_size 4 \
    --max_steps "${STEPS:-200}" \
    --learning_rate $LR \
    --fp16
