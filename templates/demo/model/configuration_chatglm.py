"""The configuration of a tiny model that is built like ChatGLM."""
from transformers.configuration_utils import PretrainedConfig


class ChatGLMConfig(PretrainedConfig):
    """The sizes of the model and the ids of its special tokens.

    `pre_seq_len` is the number of virtual tokens that P-tuning puts in front; None means no P-tuning.
    `prefix_projection` puts a small network behind their table.
    """

    model_type = "chatglm"

    def __init__(
        self,
        vocab_size=1024,
        hidden_size=64,
        inner_hidden_size=256,
        num_layers=2,
        num_attention_heads=4,
        layernorm_epsilon=1e-5,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        gmask_token_id=4,
        pre_seq_len=None,
        prefix_projection=False,
        quantization_bit=0,
        use_cache=True,
        **kwargs,
    ):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.inner_hidden_size = inner_hidden_size
        self.num_layers = num_layers
        self.num_attention_heads = num_attention_heads
        self.layernorm_epsilon = layernorm_epsilon
        self.gmask_token_id = gmask_token_id
        self.pre_seq_len = pre_seq_len
        self.prefix_projection = prefix_projection
        self.quantization_bit = quantization_bit
        self.use_cache = use_cache
        super().__init__(pad_token_id=pad_token_id, bos_token_id=bos_token_id, eos_token_id=eos_token_id, **kwargs)
