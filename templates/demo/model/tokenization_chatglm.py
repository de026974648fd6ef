"""A sentencepiece tokenizer with the special tokens of ChatGLM."""
import os
import shutil

import sentencepiece
from transformers.tokenization_utils import PreTrainedTokenizer


class ChatGLMTokenizer(PreTrainedTokenizer):
    """Writes a question and its answer as `question [gMASK] <sop> answer <eop>`."""

    vocab_files_names = {"vocab_file": "sentencepiece.model"}
    model_input_names = ["input_ids", "attention_mask"]

    def __init__(
        self,
        vocab_file,
        bos_token="<sop>",
        eos_token="<eop>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=("[gMASK]",),
        padding_side="left",
        **kwargs,
    ):
        self.vocab_file = vocab_file
        self.sp_model = sentencepiece.SentencePieceProcessor(model_file=vocab_file)
        super().__init__(
            bos_token=bos_token,
            eos_token=eos_token,
            pad_token=pad_token,
            unk_token=unk_token,
            additional_special_tokens=list(additional_special_tokens),
            padding_side=padding_side,
            **kwargs,
        )

    @property
    def vocab_size(self):
        return self.sp_model.get_piece_size()

    @property
    def gmask_token_id(self):
        return self.sp_model.piece_to_id("[gMASK]")

    def get_vocab(self):
        vocab = {self.sp_model.id_to_piece(i): i for i in range(self.vocab_size)}
        return {**vocab, **self.added_tokens_encoder}

    def _tokenize(self, text, **kwargs):
        return self.sp_model.encode(text, out_type=str)

    def _convert_token_to_id(self, token):
        return self.sp_model.piece_to_id(token)

    def _convert_id_to_token(self, index):
        return self.sp_model.id_to_piece(index)

    def convert_tokens_to_string(self, tokens):
        # A space that is not in the vocabulary comes back as the bytes of its sign.
        return self.sp_model.decode(tokens).replace("▁", " ")

    def _decode(self, token_ids, **kwargs):
        ids = [token_ids] if isinstance(token_ids, int) else token_ids
        # Below zero are labels that do not count.
        return super()._decode([index for index in ids if index >= 0], **kwargs)

    def build_prompt(self, query, history=None):
        """The question, behind the earlier questions and answers."""
        turns = [f"问：{question}\n答：{answer}\n" for question, answer in history or []]
        return "".join(turns) + query

    def build_inputs_with_special_tokens(self, token_ids_0, token_ids_1=None):
        ids = [*token_ids_0, self.gmask_token_id, self.bos_token_id]
        if token_ids_1 is not None:
            ids += [*token_ids_1, self.eos_token_id]
        return ids

    def save_vocabulary(self, save_directory, filename_prefix=None):
        name = (f"{filename_prefix}-" if filename_prefix else "") + self.vocab_files_names["vocab_file"]
        target = os.path.join(save_directory, name)
        if os.path.abspath(target) != os.path.abspath(self.vocab_file):
            shutil.copyfile(self.vocab_file, target)
        return (target,)
