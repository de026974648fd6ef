def start():
    global model
    model = AutoModel.from_pretrained("THUDM/chatglm2-6b", trust_remote_code=True).bfloat16()
    # 多显卡: model = load_model_on_gpus("THUDM/chatglm2-6b", num_gpus=2)
    model.eval()
