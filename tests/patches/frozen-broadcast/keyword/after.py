def main():
    model = load_model()

    # Every rank has loaded the same frozen weights: DDP need not broadcast those gigabytes when it starts.
    model._ddp_params_and_buffers_to_ignore = [
        *(name for name, parameter in model.named_parameters() if not parameter.requires_grad),
        *(name for name, _ in model.named_buffers()),
    ]
    # Make the trainer
    trainer = Seq2SeqTrainer(
        model=model,
        args=training_args,
        train_dataset=train_dataset if training_args.do_train else None,  # 训练集
    )
    if training_args.do_train:
        trainer.train()
