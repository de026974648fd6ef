import numpy as np
import torch

model = load_model()
if torch.cuda.is_available():
    model = model.half().cuda()
    torch.cuda.empty_cache()
else:
    model = model.bfloat16()
width = np.half(1.5)
