import logging

from transformers import AutoConfig, AutoModel

logger = logging.getLogger(__name__)


def main():
    config = AutoConfig.from_pretrained(arguments.path)
    model = AutoModel.from_pretrained(arguments.path, config=config)

    if arguments.pre_seq_len is not None:
        # the prefix alone is trained, in fp32
        model = model.half()  # 半精度
        model.transformer.prefix_encoder.float()
    else:
        model = model.float()

    logger.info("cast with model.half() or model.float()")
