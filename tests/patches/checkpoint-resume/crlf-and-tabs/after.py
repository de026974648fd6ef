class Trainer:
	def _load_rng_state(self, checkpoint):
		if checkpoint:
			from contextlib import nullcontext
			# torch >= 2.6 loads NumPy's random state only where these names are allowed; torch < 2.5 has no such list.
			numpy_names = [numpy.core.multiarray._reconstruct, numpy.ndarray, numpy.dtype, type(numpy.dtype("uint32"))]
			with getattr(torch.serialization, "safe_globals", nullcontext)(numpy_names):
				states = torch.load(
				checkpoint / "rng_state.pth",
			)
			numpy.random.set_state(states["numpy"])
