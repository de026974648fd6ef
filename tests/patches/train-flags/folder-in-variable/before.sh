DIR=$PWD
OUT="$DIR/out dir"
LOG=./log
CUDA_VISIBLE_DEVICES=0,1 OMP_NUM_THREADS=2 nohup python3 "${DIR}/main.py" \
	--do_train \
	--output_dir "$OUT" \
	--prompt_column 'a "b" c' \
	--quantization_bit $(( 2 * 2 )) \
	> $LOG-$STEP-x.txt 2>&1
