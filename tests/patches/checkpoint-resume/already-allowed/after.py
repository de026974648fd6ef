class Trainer:
    def _load_rng_state(self, checkpoint):
        states = torch.load(checkpoint / "rng_state.pth", weights_only=False)
        np.random.set_state(states["numpy"])
