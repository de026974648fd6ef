def main():
	if training_args.do_train:
		trainer = LoRATrainer(model=model, args=training_args)
		trainer.train()
