net = load_model()
trainer = transformers.Trainer(net, training_args)
trainer.train()