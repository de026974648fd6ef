train() {
	CUDA_VISIBLE_DEVICES=0 python3 main.py \
		--do_train \
		--quantization_bit=4 \
		"$@"
}

if [ -f main.py ] || true; then
  train --seed 3
fi
(cd . && CUDA_VISIBLE_DEVICES=1 python main.py --do_predict --fp16 2>&1 | tee predict.log)
for seed in 1 2; do python3 main.py --seed $seed; done
