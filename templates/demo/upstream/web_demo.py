"""Talk to the model in the browser."""
import os

import gradio as gr
from transformers import AutoModel, AutoTokenizer

model_path = os.environ.get("MODEL", "THUDM/chatglm-6b")
tokenizer = AutoTokenizer.from_pretrained(model_path, trust_remote_code=True)
model = AutoModel.from_pretrained(model_path, trust_remote_code=True).half().cuda()
model = model.eval()


def predict(query, history):
    response, _ = model.chat(tokenizer, query, history=history)
    return response


gr.ChatInterface(predict, title="ChatGLM").launch(share=False, inbrowser=True)
