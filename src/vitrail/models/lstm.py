"""LSTM and bidirectional LSTM classifiers of sentences.

"Improved Semantic Representations From Tree-Structured Long Short-Term Memory Networks", Tai et al., 2015, table 1
(the sequential baselines), on 300 channels a word:

| model | state | parameters of the cell |
|---|---|---|
| LSTM | 168 | 315,840 |
| bidirectional LSTM | 168 | 315,840 (the paper ties both directions; here each has its own) |

The sentence vector is the last state of each direction. Details that are easy to get wrong: the backward direction
starts at the last real token, not at padding; the forget gate starts open (bias 1).
"""

from dataclasses import dataclass, replace

from torch import nn

from vitrail.parts.heads import LinearHead
from vitrail.parts.recurrent import LSTM, FinalState
from vitrail.parts.sequence_model import SequenceBackbone, SequenceModel
from vitrail.parts.stages import Stage
from vitrail.parts.text_embedding import TextEmbedding, TokenDropout


@dataclass(frozen=True)
class LSTMConfig:
    """The numbers of an LSTM classifier."""

    dim: int = 300
    hidden: int = 168
    depth: int = 1
    directions: int = 1
    vocab_size: int = 16000
    dropout: float = 0.5
    num_classes: int = 2


def build(config: LSTMConfig) -> SequenceModel:
    """Assemble an LSTM classifier from its numbers.

    Example:
        >>> import torch
        >>> with torch.device("meta"):
        ...     model = build(VARIANTS["lstm_sst"])
        >>> sum(value.numel() for value in model.parameters())
        5116178
    """
    c = config
    embedding = TextEmbedding(c.vocab_size, c.dim, [TokenDropout(c.dropout)])
    lstm = LSTM(c.dim, c.hidden, c.depth, c.directions, c.dropout)
    head = LinearHead(FinalState(c.directions), c.directions * c.hidden, c.num_classes)
    model = SequenceModel(SequenceBackbone(embedding, [Stage([lstm])], nn.Dropout(c.dropout)), head)
    nn.init.normal_(embedding.words.weight, std=c.dim**-0.5)
    for name, parameter in lstm.named_parameters():
        if "bias_hh" in name:
            nn.init.zeros_(parameter)
        elif "bias_ih" in name:  # input, forget, candidate, output
            nn.init.zeros_(parameter)
            nn.init.ones_(parameter.detach()[c.hidden : 2 * c.hidden])
        elif "weight_hh" in name:
            for gate in parameter.detach().chunk(4):
                nn.init.orthogonal_(gate)
        else:
            nn.init.xavier_uniform_(parameter)
    return model


UNIDIRECTIONAL = LSTMConfig()
VARIANTS = {
    "lstm_sst": UNIDIRECTIONAL,
    "bilstm_sst": replace(UNIDIRECTIONAL, directions=2),
}
