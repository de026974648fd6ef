class Trainer:
    def autocast_smart_context_manager(self, cache_enabled=True):
        if self.use_cpu_amp:
            return torch.cpu.amp.autocast(cache_enabled=cache_enabled, dtype=self.amp_dtype)
        if self.use_cuda_amp:
            return torch.cuda.amp.autocast(cache_enabled=cache_enabled, dtype=self.amp_dtype)
        return contextlib.nullcontext()
