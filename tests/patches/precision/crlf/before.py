model = AutoModel.from_pretrained(path).half().cuda()
# model = model.half()
model.transformer.prefix_encoder.float()