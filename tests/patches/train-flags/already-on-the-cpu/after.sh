python3 main.py --no_cuda True --do_train --bf16
python3 main.py --no_cuda --bf16 --do_predict
