DIR=$PWD
OUT="$DIR/out dir"
LOG=./log
OMP_NUM_THREADS=2 nohup python3 "${DIR}/main.py" \
	--do_train \
	--output_dir "$OUT" \
	--prompt_column 'a "b" c' \
	--no_cuda \
	--bf16 \
	> $LOG-$STEP-x.txt 2>&1
