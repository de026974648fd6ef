"""A tiny model that is built like ChatGLM: a prefix decoder with two-dimensional rotary positions, and P-tuning v2."""
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel

from .configuration_chatglm import ChatGLMConfig


def rotate(states, positions):
    """Turn the pairs of `states` [batch, head, token, size] by an angle that grows with `positions` [batch, token]."""
    half = states.size(-1) // 2
    frequencies = 10000.0 ** (-torch.arange(half, device=states.device) / half)
    angles = positions[:, None, :, None] * frequencies
    cos, sin = angles.cos().to(states.dtype), angles.sin().to(states.dtype)
    left, right = states.chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), dim=-1)


def rotate_2d(states, position_ids):
    """Half of each head turns with the place in the question, the other half with the place in the answer."""
    question, answer = states.chunk(2, dim=-1)
    return torch.cat((rotate(question, position_ids[:, 0]), rotate(answer, position_ids[:, 1])), dim=-1)


class PrefixEncoder(nn.Module):
    """A table of virtual tokens: for each one a key and a value in every layer."""

    def __init__(self, config):
        super().__init__()
        size = config.num_layers * 2 * config.hidden_size
        if config.prefix_projection:
            self.embedding = nn.Embedding(config.pre_seq_len, config.hidden_size)
            self.trans = nn.Sequential(
                nn.Linear(config.hidden_size, config.hidden_size), nn.Tanh(), nn.Linear(config.hidden_size, size)
            )
        else:
            self.embedding = nn.Embedding(config.pre_seq_len, size)
            self.trans = nn.Identity()

    def forward(self, prefix):
        return self.trans(self.embedding(prefix))


class SelfAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states, visible, position_ids, past):
        batch, tokens, size = hidden_states.shape
        states = self.query_key_value(hidden_states).view(batch, tokens, 3, self.num_heads, -1)
        query, key, value = states.permute(2, 0, 3, 1, 4)
        query, key = rotate_2d(query, position_ids), rotate_2d(key, position_ids)
        if past is not None:
            key = torch.cat((past[0].to(key.dtype), key), dim=2)
            value = torch.cat((past[1].to(value.dtype), value), dim=2)
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=visible)
        return self.dense(context.transpose(1, 2).reshape(batch, tokens, size)), (key, value)


class GLMBlock(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.attention = SelfAttention(config)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.mlp = nn.Sequential(
            nn.Linear(config.hidden_size, config.inner_hidden_size),
            nn.GELU(),
            nn.Linear(config.inner_hidden_size, config.hidden_size),
        )

    def forward(self, hidden_states, visible, position_ids, past):
        attended, present = self.attention(self.input_layernorm(hidden_states), visible, position_ids, past)
        hidden_states = hidden_states + attended
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states)), present


class ChatGLMPreTrainedModel(PreTrainedModel):
    config_class = ChatGLMConfig
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True

    def _init_weights(self, module):
        """Nothing: the modules initialise themselves."""

    def _set_gradient_checkpointing(self, module, value=False):
        if isinstance(module, ChatGLMModel):
            module.gradient_checkpointing = value


class ChatGLMModel(ChatGLMPreTrainedModel):
    """The body. With `pre_seq_len` it is frozen, and a prefix encoder, in fp32, is what learns."""

    def __init__(self, config):
        super().__init__(config)
        self.gradient_checkpointing = False
        self.pre_seq_len = config.pre_seq_len
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        nn.init.normal_(self.word_embeddings.weight, std=config.hidden_size**-0.5)
        self.layers = nn.ModuleList([GLMBlock(config) for _ in range(config.num_layers)])
        self.final_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.half()
        if self.pre_seq_len is not None:
            self.requires_grad_(False)
            self.prefix_encoder = PrefixEncoder(config)
            self.dropout = nn.Dropout(0.1)

    def get_input_embeddings(self):
        return self.word_embeddings

    def set_input_embeddings(self, value):
        self.word_embeddings = value

    def get_prompt(self, batch_size, device, dtype):
        """The prefix as the keys and values of the past: per layer two of [batch, head, virtual token, size]."""
        tokens = torch.arange(self.pre_seq_len, device=device).expand(batch_size, -1)
        past = self.dropout(self.prefix_encoder(tokens)).to(dtype)
        past = past.view(batch_size, self.pre_seq_len, self.config.num_layers, 2, self.config.num_attention_heads, -1)
        return past.permute(2, 3, 0, 4, 1, 5).unbind(0)

    def get_position_ids(self, input_ids):
        """Places [batch, 2, token]: in the question, where the answer stays at [gMASK], and in the answer, from 1.

        Padding in front does not count.
        """
        padding = (input_ids == self.config.pad_token_id).int().cumprod(dim=1).sum(dim=1, keepdim=True)
        places = torch.arange(input_ids.size(1), device=input_ids.device) - padding
        starts = (input_ids == self.config.bos_token_id).int().argmax(dim=1, keepdim=True) - padding
        in_question = torch.minimum(places, starts - 1).clamp(min=0)
        return torch.stack((in_question, (places - starts + 1).clamp(min=0)), dim=1)

    def get_visible(self, position_ids, attention_mask, past_length):
        """Who sees whom [batch, 1, token, past + token]: the question sees itself whole, the answer what precedes it.

        What is longer in the past than in the mask is the prefix, which all see.
        """
        tokens = position_ids.size(-1)
        order = torch.ones(tokens, tokens, dtype=torch.bool, device=position_ids.device)
        in_question = position_ids[:, 1, None, :] == 0
        itself = order.tril() & order.triu()
        seen = order.tril() | in_question
        key_mask = attention_mask.bool()[:, None, :]
        seen = (seen & key_mask[..., -tokens:]) | itself
        old = key_mask[..., :-tokens].expand(-1, tokens, -1)
        prefix = old.new_ones(old.size(0), tokens, past_length - old.size(-1))
        return torch.cat((prefix, old, seen), dim=-1)[:, None]

    def forward(
        self, input_ids, attention_mask=None, position_ids=None, past_key_values=None, use_cache=None, **kwargs
    ):
        hidden_states = self.word_embeddings(input_ids)
        if past_key_values is None and self.pre_seq_len is not None:
            past_key_values = self.get_prompt(input_ids.size(0), input_ids.device, hidden_states.dtype)
        if past_key_values is None:
            past_key_values = [None] * len(self.layers)
        if attention_mask is None:
            attention_mask = input_ids != self.config.pad_token_id
        if position_ids is None:
            position_ids = self.get_position_ids(input_ids)
        past_length = 0 if past_key_values[0] is None else past_key_values[0][0].size(2)
        visible = self.get_visible(position_ids, attention_mask, past_length)

        presents = []
        for layer, past in zip(self.layers, past_key_values):
            arguments = (hidden_states, visible, position_ids, past)
            if self.gradient_checkpointing and self.training:
                hidden_states, present = checkpoint(layer, *arguments, use_reentrant=False)
            else:
                hidden_states, present = layer(*arguments)
            presents.append(present)
        return BaseModelOutputWithPast(
            last_hidden_state=self.final_layernorm(hidden_states), past_key_values=presents if use_cache else None
        )


class ChatGLMForConditionalGeneration(ChatGLMPreTrainedModel):
    _keys_to_ignore_on_load_missing = ["lm_head.weight"]

    def __init__(self, config):
        super().__init__(config)
        self.transformer = ChatGLMModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False, dtype=torch.half)
        self.post_init()

    def get_output_embeddings(self):
        return self.lm_head

    def set_output_embeddings(self, new_embeddings):
        self.lm_head = new_embeddings

    def forward(
        self,
        input_ids,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        labels=None,
        use_cache=None,
        return_dict=None,
        **kwargs,
    ):
        use_cache = not self.training if use_cache is None else use_cache
        outputs = self.transformer(input_ids, attention_mask, position_ids, past_key_values, use_cache)
        logits = self.lm_head(outputs.last_hidden_state)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100)
        result = CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=outputs.past_key_values)
        return result.to_tuple() if return_dict is False else result

    def prepare_inputs_for_generation(self, input_ids, past_key_values=None, attention_mask=None, **kwargs):
        position_ids = self.transformer.get_position_ids(input_ids)
        if past_key_values is not None:
            input_ids, position_ids = input_ids[:, -1:], position_ids[..., -1:]
        return {
            "input_ids": input_ids,
            "position_ids": position_ids,
            "attention_mask": attention_mask,
            "past_key_values": past_key_values,
            "use_cache": kwargs.get("use_cache"),
        }

    @staticmethod
    def _reorder_cache(past_key_values, beam_idx):
        return [tuple(states.index_select(0, beam_idx) for states in past) for past in past_key_values]

    @torch.no_grad()
    def chat(self, tokenizer, query, history=None, max_length=256, **kwargs):
        """Answer `query`, and give back the answer and the history with it."""
        history = history or []
        inputs = tokenizer([tokenizer.build_prompt(query, history)], return_tensors="pt").to(self.device)
        written = self.generate(**inputs, max_length=max_length, **kwargs)
        response = tokenizer.decode(written[0, inputs["input_ids"].size(1) :], skip_special_tokens=True)
        return response, [*history, (query, response)]

    def quantize(self, bits, **kwargs):
        """Round the weights of the layers to `bits` bits, on the GPU as the kernels of the real model do."""
        for module in self.transformer.layers.modules():
            if isinstance(module, nn.Linear):
                weight = module.weight.data.cuda()
                scale = weight.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)
                module.weight.data = (weight / scale).round() * scale
        self.config.quantization_bit = bits
        return self
