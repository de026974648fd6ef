model = load_model()
if prefix_length is not None:
    model = model.bfloat16()
    model.transformer.prefix_encoder.float()
else:
    model = model.float()
