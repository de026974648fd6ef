def train():
    model = load_model()
    model = model.bfloat16()
    return fit(model)


def predict():
    predict_model = AutoModel.from_pretrained(path).bfloat16()
    return answer(predict_model)
