PYTHON=${PYTHON:-python3}
ARGS=(--max_steps 10 --output_dir "out dir")
MORE="--seed 1"
$PYTHON main.py --do_train "${ARGS[@]}" $MORE
