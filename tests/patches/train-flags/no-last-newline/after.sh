python main.py \
  --do_predict \
  --pre_seq_len 64 \
  --no_cuda \
  --bf16