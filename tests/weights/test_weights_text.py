"""Text models answer as transformers' do, with the weights of its state dict."""

from dataclasses import asdict
from typing import Any

import pytest
import torch

from vitrail.cli import main
from vitrail.errors import VitrailError
from vitrail.layouts import TokenSequence
from vitrail.models import create_model
from vitrail.weights.formats import write_as
from vitrail.weights.from_checkpoint import from_checkpoint
from vitrail.weights.load import load_weights

transformers = pytest.importorskip("transformers")

SIZES = {"dim": 32, "depth": 2, "num_heads": 4, "vocab_size": 50}
BERT = {**SIZES, "max_length": 20, "mlp_ratio": 2.0}


def _scaled(theirs):
    """Draw weights that are not small, so that every one shows in the answer."""
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "embed_positions" in name:
                continue  # sinusoids, which are not learned
            parameter.add_(torch.randn_like(parameter) * 0.3 / max(parameter.shape[-1], 1) ** 0.5)
    return theirs.eval()


def _bert(kind: str):
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, vocab_size=50,
        max_position_embeddings=20, intermediate_size=64, num_labels=3,
    )  # fmt: skip
    return _scaled(getattr(transformers, kind)(config))


def _gpt2():
    special = {"bos_token_id": 0, "eos_token_id": 0}
    config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=50, n_positions=20, **special)
    return _scaled(transformers.GPT2LMHeadModel(config))


def _gpt():
    config = transformers.OpenAIGPTConfig(n_embd=32, n_layer=2, n_head=4, vocab_size=50, n_positions=20)
    return _scaled(transformers.OpenAIGPTLMHeadModel(config))


def _albert(kind: str = "AlbertForPreTraining"):
    config = transformers.AlbertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, vocab_size=50, embedding_size=16,
        max_position_embeddings=20, intermediate_size=64, bos_token_id=2, eos_token_id=3,
        num_labels=2 if kind == "AlbertForPreTraining" else 3,
    )  # fmt: skip
    return _scaled(getattr(transformers, kind)(config))


def _convbert():
    config = transformers.ConvBertConfig(
        hidden_size=32, embedding_size=32, num_hidden_layers=2, num_attention_heads=4, vocab_size=50,
        max_position_embeddings=20, intermediate_size=64, conv_kernel_size=5,
    )  # fmt: skip
    model = _scaled(transformers.ConvBertForMaskedLM(config))
    for layer in model.convbert.encoder.layer:
        layer.attention.self.key_conv_attn_layer.bias.data.normal_()
    return model


def _marian(act: str = "swish"):
    config = transformers.MarianConfig(
        d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
        encoder_ffn_dim=64, decoder_ffn_dim=64, vocab_size=50, max_position_embeddings=20, activation_function=act,
        scale_embedding=True, pad_token_id=0, decoder_start_token_id=0, eos_token_id=1, bos_token_id=2,
    )  # fmt: skip
    model = _scaled(transformers.MarianMTModel(config))
    model.final_logits_bias.normal_()
    return model


REFORMER = {
    "dim": 32,
    "num_heads": 4,
    "head_dim": 6,
    "hidden": 48,
    "vocab_size": 50,
    "attn_layers": ("lsh", "local", "lsh"),
    "position_shape": (4, 8),
    "position_dims": (12, 20),
    "buckets": (2, 4),
    "rounds": 3,
    "hash_seed": 7,
}


def _reformer(local: int = 4, lsh: int = 8, buckets: Any = (2, 4)):
    config = transformers.ReformerConfig(
        hidden_size=32, num_attention_heads=4, attention_head_size=6, feed_forward_size=48, vocab_size=50,
        attn_layers=["lsh", "local", "lsh"], axial_pos_shape=[4, 8], axial_pos_embds_dim=[12, 20], is_decoder=True,
        num_buckets=list(buckets), num_hashes=3, hash_seed=7, local_attn_chunk_length=local, lsh_attn_chunk_length=lsh,
        max_position_embeddings=32, use_cache=False,
    )  # fmt: skip
    return _scaled(transformers.ReformerModelWithLMHead(config))


ENCODERS = {
    "BertForPreTraining": ("bert_tiny", {}),
    "BertForMaskedLM": ("bert_tiny", {"head": "masked"}),
    "BertForSequenceClassification": ("bert_tiny", {"head": "classes", "num_classes": 3}),
    "AlbertForPreTraining": ("albert_base_v2", {"word_dim": 16}),
    "AlbertForMaskedLM": ("albert_base_v2", {"word_dim": 16, "head": "masked"}),
    "AlbertForSequenceClassification": ("albert_base_v2", {"word_dim": 16, "head": "classes", "num_classes": 3}),
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_encoders(kind):
    theirs = _albert(kind) if kind.startswith("Albert") else _bert(kind)
    variant, own = ENCODERS[kind]
    ours = create_model(variant, **BERT, **own).eval()
    report = load_weights(ours, theirs.state_dict())
    assert (report.format, report.loaded) == ("huggingface", len(ours.state_dict()))
    ids, segments, lengths = torch.randint(0, 50, (2, 9)), torch.randint(0, 2, (2, 9)), torch.tensor([9, 5])
    mask = (torch.arange(9) < lengths[:, None]).long()
    with torch.no_grad():
        want = theirs(ids, attention_mask=mask, token_type_ids=segments)
        got = ours(ids, TokenSequence(9, lengths=lengths, segments=segments))
    if kind.endswith("PreTraining"):
        other = want.sop_logits if kind.startswith("Albert") else want.seq_relationship_logits
        torch.testing.assert_close(got.next, other, rtol=1e-5, atol=1e-5)
        got, want = got.words, want.prediction_logits
    else:
        want = want.logits
    real = mask.bool() if got.ndim == 3 else slice(None)
    torch.testing.assert_close(got[real], want[real], rtol=1e-5, atol=1e-5)


def test_convbert():
    theirs, ours = _convbert(), create_model("conv_bert_base", **BERT, kernel_size=5).eval()
    load_weights(ours, theirs.state_dict())
    ids, segments = torch.randint(0, 50, (2, 9)), torch.randint(0, 2, (2, 9))
    want = theirs(ids, token_type_ids=segments).logits  # without padding, which their convolutions read
    torch.testing.assert_close(ours(ids, TokenSequence(9, segments=segments)), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("theirs", "name"), [(_gpt, "openai_gpt"), (_gpt2, "gpt2")], ids=["gpt", "gpt2"])
def test_gpt(theirs, name):
    theirs, ours = theirs(), create_model(name, **SIZES, max_length=20).eval()
    load_weights(ours, theirs.state_dict())
    ids = torch.randint(0, 50, (2, 11))
    torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("local", "lsh"), [(4, 8), (8, 4), (4, 4)])
@torch.no_grad()
def test_reformer(local, lsh, monkeypatch):
    theirs, draw = _reformer(local, lsh), torch.randn
    ours = create_model("reformer_enwik8", **REFORMER, local_chunk=local, lsh_chunk=lsh).eval()
    report = load_weights(ours, theirs.state_dict())
    assert (report.format, report.loaded) == ("huggingface", len(ours.state_dict()))
    theirs.double()  # see the errata: in fp32 their weights of a token that sees itself alone are rounded
    monkeypatch.setattr(torch, "randn", lambda *a, dtype=None, **k: draw(*a, dtype=torch.float32, **k).to(dtype))
    for length in (3, 8, 24, 29):
        ids = torch.randint(0, 50, (2, length))
        want = theirs(ids).logits + theirs.lm_head.bias  # which transformers 5.23 loads and leaves out
        torch.testing.assert_close(ours(ids), want.float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", ["marian", "paper"])
def test_marian(form):
    theirs = _marian("swish" if form == "marian" else "relu")
    ours = create_model("opus_mt_en_de", **SIZES, hidden=64).eval()
    load_weights(ours, theirs.state_dict())
    if form == "paper":  # ReLU, with Marian's order of the sinusoids
        for block in (*ours.encoder.blocks, *ours.decoder.blocks):
            block.channel_mixer.act = torch.nn.ReLU()
    source, target, lengths = torch.randint(3, 50, (2, 9)), torch.randint(3, 50, (2, 7)), torch.tensor([9, 4])
    mask = (torch.arange(9) < lengths[:, None]).long()
    want = theirs(source, attention_mask=mask, decoder_input_ids=target).logits
    torch.testing.assert_close(ours(source, target, TokenSequence(9, lengths=lengths)), want, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_pytorchs_transformer(norm):
    ours = create_model("transformer_base_wmt_en_de", **SIZES, hidden=64, norm=norm).eval()
    theirs = torch.nn.Transformer(32, 4, 2, 2, 64, dropout=0.0, batch_first=True, norm_first=norm == "pre")
    if norm == "post":
        theirs.encoder.norm = theirs.decoder.norm = None
    else:
        theirs.get_submodule("encoder.norm").load_state_dict(ours.encoder_norm.state_dict())
        theirs.get_submodule("decoder.norm").load_state_dict(ours.decoder_norm.state_dict())
    for mine, layer in zip(
        (*ours.encoder.blocks, *ours.decoder.blocks), (*theirs.encoder.layers, *theirs.decoder.layers), strict=True
    ):
        named = {
            "self_attn.in_proj_": "token_mixer.qkv.",
            "self_attn.out_proj.": "token_mixer.proj.",
            "norm1.": "norm1.",
        }
        named |= {"linear1.": "channel_mixer.fc1.", "linear2.": "channel_mixer.fc2."}
        cross = hasattr(mine, "cross_mixer")
        named |= (
            {"norm2.": "norm_cross.", "norm3.": "norm2.", "multihead_attn.out_proj.": "cross_mixer.proj."}
            if cross
            else {"norm2.": "norm2."}
        )
        state = {
            their + kind: mine.get_parameter(our + kind) for their, our in named.items() for kind in ("weight", "bias")
        }
        if cross:
            state |= {
                "multihead_attn.in_proj_" + kind: torch.cat(
                    [mine.get_parameter(f"cross_mixer.{part}.{kind}") for part in ("q", "kv")]
                )
                for kind in ("weight", "bias")
            }
        layer.load_state_dict(state)
    source, target = torch.randint(0, 50, (2, 9)), torch.randint(0, 50, (2, 7))
    x, y = (ours.embedding(ids, TokenSequence(ids.shape[1]))[0] for ids in (source, target))
    mask = torch.nn.Transformer.generate_square_subsequent_mask(7)
    want = theirs.train()(x, y, tgt_mask=mask) @ ours.embedding.words.weight.T
    torch.testing.assert_close(ours(source, target), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: _bert("BertForPreTraining"),
        _albert,
        lambda: _albert("AlbertForMaskedLM"),
        lambda: _albert("AlbertForSequenceClassification"),
        *(_convbert, _gpt, _gpt2, _marian, _reformer),
    ],
    ids=[
        *("bert", "albert", "albert masked", "albert classes"),
        *("convbert", "gpt", "gpt2", "marian", "reformer"),
    ],
)
def test_a_folder_of_transformers_is_recovered(tmp_path, make):
    theirs = make()
    theirs.save_pretrained(tmp_path)
    found = from_checkpoint(tmp_path)
    assert found.format == "huggingface" and found.model.config.num_heads == 4 and found.model.config.dim == 32
    written = write_as(
        "huggingface",
        found.model.variant and type(found.model.config).__module__.rpartition(".")[2],
        found.model.state_dict(),
        found.model.config,
    )
    state = theirs.state_dict()
    assert written and all(torch.equal(state[key], value) for key, value in written.items())


UNTIED = {
    "gpt": (lambda: _gpt(), "openai_gpt", {**SIZES, "max_length": 20}, "lm_head.weight"),
    "gpt2": (lambda: _gpt2(), "gpt2", {**SIZES, "max_length": 20}, "lm_head.weight"),
    "bert": (
        lambda: _bert("BertForMaskedLM"),
        *("bert_tiny", {**BERT, "head": "masked"}, "cls.predictions.decoder.weight"),
    ),
    "albert": (
        lambda: _albert("AlbertForMaskedLM"),
        *("albert_base_v2", {**BERT, "word_dim": 16, "head": "masked"}, "predictions.decoder.weight"),
    ),
    "convbert": (lambda: _convbert(), "conv_bert_base", {**BERT, "kernel_size": 5}, "generator_lm_head.weight"),
    "marian": (lambda: _marian("swish"), "opus_mt_en_de", {**SIZES, "hidden": 64}, "lm_head.weight"),
}


@pytest.mark.parametrize("name", UNTIED)
def test_an_output_layer_of_its_own_is_refused(name):
    """`tie_word_embeddings=False`: the second table may equal the first; if it does not, the logits would be others."""
    make, variant, fields, key = UNTIED[name]
    state = {k: value.clone() for k, value in make().state_dict().items()}
    load_weights(create_model(variant, **fields), state)
    state[key][3] += 0.1
    with pytest.raises(VitrailError, match=f"has a {key} of its own"):
        load_weights(create_model(variant, **fields), state, strict=False)


def test_an_output_layer_of_its_own_does_not_matter_to_a_classifier():
    state = dict(_bert("BertForMaskedLM").state_dict())
    state["cls.predictions.decoder.weight"] = state["cls.predictions.decoder.weight"] + 0.1
    ours = create_model("bert_tiny", **BERT, head="classes", num_classes=3)
    report = load_weights(ours, state, strict=False)
    assert report.missing and all(key.startswith("head.") for key in report.missing)


@pytest.mark.parametrize("task", ["SequenceClassification", "QuestionAnswering"])
def test_a_head_of_another_task_is_not_left_out(task, tmp_path):
    """Under a prefix, the tensors without the head are a whole model of ours."""
    config = transformers.GPT2Config(
        n_embd=32, n_layer=2, n_head=4, vocab_size=50, n_positions=20, pad_token_id=0, bos_token_id=0, eos_token_id=0
    )
    getattr(transformers, f"GPT2For{task}")(config).save_pretrained(tmp_path)
    with pytest.raises(VitrailError, match=f"architectures=GPT2For{task}"):
        from_checkpoint(tmp_path)


def test_a_model_of_texts_is_converted_by_the_command(tmp_path, capsys):
    """The report names the fields that differ from the variant; texts have no preprocessing of images."""
    _gpt2().save_pretrained(tmp_path / "theirs")
    assert main(["convert", str(tmp_path / "theirs"), "--out", str(tmp_path / "ours")]) == 0
    assert "weights of gpt2, dim=32, depth=2" in capsys.readouterr().out


@pytest.mark.parametrize("variant", ["bert_tiny", "albert_base_v2"])
@pytest.mark.parametrize("head", ["masked", "classes", "vector"])
def test_a_checkpoint_with_another_head_is_told_by_its_head(variant, head):
    theirs = {"masked": "ForMaskedLM", "classes": "ForSequenceClassification", "vector": "Model"}[head]
    state = (
        _albert("Albert" + theirs).state_dict() if variant.startswith("albert") else _bert("Bert" + theirs).state_dict()
    )
    found: Any = from_checkpoint(state, variant, num_heads=4).model
    assert found.config.head == head and (head != "classes" or found.config.num_classes == 3)
    other = create_model(variant, **{**asdict(found.config), "head": "pretraining"})
    with pytest.raises(VitrailError) as error:
        load_weights(other, state)
    want = "It has no head." if head == "vector" else f"It has another head: give head={head!r} to create_model"
    assert want in str(error.value) and "published" not in str(error.value)
