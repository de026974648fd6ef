def main():
    if model_args.pre_seq_len is not None:
        trainer = PrefixTrainer(model=model, args=training_args)
    else:
        trainer = Seq2SeqTrainer(model=model, args=training_args)
    trainer.train()
