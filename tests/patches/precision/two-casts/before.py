def train():
    model = load_model()
    model = model.half()
    return fit(model)


def predict():
    predict_model = AutoModel.from_pretrained(path).half()
    return answer(predict_model)
