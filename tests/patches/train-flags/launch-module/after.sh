nohup python -u main.py --do_train --save_steps 50 --no_cuda --bf16 > train.log 2>&1 &
wait
