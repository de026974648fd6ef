def main():
    if model_args.pre_seq_len is not None:
        # Every rank has loaded the same frozen weights: DDP need not broadcast those gigabytes when it starts.
        model._ddp_params_and_buffers_to_ignore = [
            *(name for name, parameter in model.named_parameters() if not parameter.requires_grad),
            *(name for name, _ in model.named_buffers()),
        ]
        trainer = PrefixTrainer(model=model, args=training_args)
    else:
        # Every rank has loaded the same frozen weights: DDP need not broadcast those gigabytes when it starts.
        model._ddp_params_and_buffers_to_ignore = [
            *(name for name, parameter in model.named_parameters() if not parameter.requires_grad),
            *(name for name, _ in model.named_buffers()),
        ]
        trainer = Seq2SeqTrainer(model=model, args=training_args)
    trainer.train()
