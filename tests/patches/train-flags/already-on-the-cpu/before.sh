python3 main.py --no_cuda True --do_train --quantization_bit 4 --bf16=false
python3 main.py --no_cuda False --fp16 --bf16 --do_predict
