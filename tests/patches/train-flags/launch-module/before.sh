nohup python -u -m torch.distributed.launch --use_env --nproc_per_node=1 main.py --do_train --save_steps 50 > train.log 2>&1 &
wait
