net = load_model()
# Every rank has loaded the same frozen weights: DDP need not broadcast those gigabytes when it starts.
net._ddp_params_and_buffers_to_ignore = [
    *(name for name, parameter in net.named_parameters() if not parameter.requires_grad),
    *(name for name, _ in net.named_buffers()),
]
trainer = transformers.Trainer(net, training_args)
trainer.train()