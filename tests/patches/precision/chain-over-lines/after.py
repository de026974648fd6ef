def load(path):
	model = (
		AutoModel.from_pretrained(path, trust_remote_code=True)
		.bfloat16()  # fp16
		# and off to the card
	)
	return model
