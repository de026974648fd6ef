"""Talk to a tuned model in the browser."""
import os

import gradio as gr
import torch
from transformers import AutoModel, AutoTokenizer, HfArgumentParser

from arguments import ModelArguments

model = None
tokenizer = None


def predict(query, history):
    response, _ = model.chat(tokenizer, query, history=history)
    return response


def main():
    global model, tokenizer
    (model_args,) = HfArgumentParser(ModelArguments).parse_args_into_dataclasses()

    source = model_args.model_name_or_path
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=True)
    tuned = {"pre_seq_len": model_args.pre_seq_len, "prefix_projection": model_args.prefix_projection}
    model = AutoModel.from_pretrained(source, trust_remote_code=True, **tuned)

    if model_args.ptuning_checkpoint:
        start = "transformer.prefix_encoder."
        file = os.path.join(model_args.ptuning_checkpoint, "pytorch_model.bin")
        prefix = {name[len(start):]: value for name, value in torch.load(file).items() if name.startswith(start)}
        model.transformer.prefix_encoder.load_state_dict(prefix)

    if model_args.quantization_bit:
        model = model.quantize(model_args.quantization_bit)
    if model_args.pre_seq_len:
        model = model.half().cuda()
        model.transformer.prefix_encoder.float().cuda()

    model = model.eval()
    gr.ChatInterface(predict, title="ChatGLM, tuned").launch(share=False, inbrowser=True)


if __name__ == "__main__":
    main()
