model = AutoModel.from_pretrained(path).bfloat16()
# model = model.half()
model.transformer.prefix_encoder.float()