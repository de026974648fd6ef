time env CUDA_VISIBLE_DEVICES=0 TAG=x nice -n 5 python3 main.py --do_train &> log || exit 1
env A=1 \
    CUDA_VISIBLE_DEVICES=0 \
    python3 main.py > log --do_predict < /dev/null --quantization_bit 4
