model = AutoModel.from_pretrained(path)
model = model.half().cuda()
model.transformer.prefix_encoder.float().cuda()
model.eval()
