def main():
    model._ddp_params_and_buffers_to_ignore = [name for name, _ in model.named_buffers()]
    with deepspeed():
        trainer = Seq2SeqTrainer(model=model, args=training_args)
    trainer.train()
