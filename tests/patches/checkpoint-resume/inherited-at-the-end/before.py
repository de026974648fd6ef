import torch
from transformers import Seq2SeqTrainer as Base

class PrefixTrainer(Base):
  save_changed = True