"""Talk to the model in the terminal."""
import os

from transformers import AutoModel, AutoTokenizer

model_path = os.environ.get("MODEL", "THUDM/chatglm-6b")
tokenizer = AutoTokenizer.from_pretrained(model_path, trust_remote_code=True)
model = AutoModel.from_pretrained(model_path, trust_remote_code=True).half().cuda()
model = model.eval()


def main():
    history = []
    print("说点什么。clear：重新开始，stop：退出")
    while True:
        query = input("\n> ").strip()
        if query == "stop":
            break
        if query == "clear":
            history = []
            continue
        response, history = model.chat(tokenizer, query, history=history)
        print(response)


if __name__ == "__main__":
    main()
