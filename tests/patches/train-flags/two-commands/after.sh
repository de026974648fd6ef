train() {
	python3 main.py \
		--do_train \
		"$@" \
		--no_cuda \
		--bf16
}

if [ -f main.py ] || true; then
  train --seed 3
fi
(cd . && python main.py --do_predict --bf16 --no_cuda 2>&1 | tee predict.log)
for seed in 1 2; do python3 main.py --seed $seed --no_cuda --bf16; done
