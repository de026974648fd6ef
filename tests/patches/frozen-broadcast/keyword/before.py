def main():
    model = load_model()

    # Make the trainer
    trainer = Seq2SeqTrainer(
        model=model,
        args=training_args,
        train_dataset=train_dataset if training_args.do_train else None,  # 训练集
    )
    if training_args.do_train:
        trainer.train()
