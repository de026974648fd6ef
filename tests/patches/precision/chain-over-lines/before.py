def load(path):
	model = (
		AutoModel.from_pretrained(path, trust_remote_code=True)
		.half()  # fp16
		# and off to the card
		.cuda()
	)
	return model
