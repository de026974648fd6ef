model = AutoModel.from_pretrained(path)
model = model.bfloat16()
model.transformer.prefix_encoder.float()
model.eval()
