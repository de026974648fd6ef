"""Serve the model over HTTP: POST {"prompt": ..., "history": [...]}."""
import os

import torch
import uvicorn
from fastapi import FastAPI, Request
from transformers import AutoModel, AutoTokenizer

app = FastAPI()


def free_memory():
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@app.post("/")
async def answer(request: Request):
    body = await request.json()
    response, history = model.chat(
        tokenizer,
        body["prompt"],
        history=body.get("history", []),
        max_length=body.get("max_length", 2048),
    )
    free_memory()
    return {"response": response, "history": history, "status": 200}


if __name__ == "__main__":
    model_path = os.environ.get("MODEL", "THUDM/chatglm-6b")
    tokenizer = AutoTokenizer.from_pretrained(model_path, trust_remote_code=True)
    model = AutoModel.from_pretrained(model_path, trust_remote_code=True).half().cuda()
    model.eval()
    uvicorn.run(app, host="127.0.0.1", port=8000)
