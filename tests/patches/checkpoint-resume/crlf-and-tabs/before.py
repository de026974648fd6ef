class Trainer:
	def _load_rng_state(self, checkpoint):
		if checkpoint:
			states = torch.load(
				checkpoint / "rng_state.pth",
			)
			numpy.random.set_state(states["numpy"])
