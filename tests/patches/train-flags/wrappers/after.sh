time env TAG=x nice -n 5 python3 main.py --do_train --no_cuda --bf16 &> log || exit 1
env A=1 \
    python3 main.py > log --do_predict < /dev/null --no_cuda --bf16
