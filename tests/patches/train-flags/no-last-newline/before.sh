CUDA_VISIBLE_DEVICES=1 python main.py \
  --do_predict \
  --quantization_bit 8 \
  --pre_seq_len 64