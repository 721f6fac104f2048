"""Small random checkpoints of every model family, with logits computed by Hugging Face transformers.

    python families.py

Writes families/<name>/{config.json, config_legacy.json, model.safetensors, golden.safetensors}. Everything is float32 with
eager attention. config.json is what transformers 5 saves (rope settings under `rope_parameters`), config_legacy.json says
the same the way transformers 4, and so most checkpoints on the Hub, say it (`rope_theta`, `rope_scaling`); the script
checks that transformers computes the same from both. For every family it also switches single features off and checks
that the logits notice: a golden file that cannot tell a missing feature is worth nothing.
"""

import copy
import json
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

OUT = Path(__file__).parent / "families"
SEQUENCE = 48  # tokens: longer than every sliding window below

BASE = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
    "tie_word_embeddings": False,
}


def rope(kind="default", theta=10000.0, **more):
    return {"rope_type": kind, "rope_theta": theta, **more}


LONG_FACTORS = [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0]
SHORT_FACTORS = [1.0, 1.0, 1.1, 1.2, 1.3, 1.5, 1.7, 2.0]

# name -> (model_type, settings on top of BASE, features: name -> settings that switch the feature off)
FAMILIES = {
    "llama": ("llama", {"rope_parameters": rope(theta=500.0)}, {"rope base": {"rope_parameters": rope()}}),
    "llama_mha_tied_odd": (
        "llama",
        {"vocab_size": 131, "hidden_size": 72, "num_attention_heads": 3, "num_key_value_heads": 3, "tie_word_embeddings": True,
         "rope_parameters": rope(), "rms_norm_eps": 1e-2},
        {"norm epsilon": {"rms_norm_eps": 1e-5}},
    ),
    "llama_bias": (
        "llama",
        {"attention_bias": True, "mlp_bias": True, "head_dim": 24, "rope_parameters": rope()},
        {},
    ),
    "llama_rope_linear": (
        "llama",
        {"tie_word_embeddings": True, "rope_parameters": rope("linear", factor=4.0)},
        {"scaling": {"rope_parameters": rope()}},
    ),
    "llama_rope_llama3": (
        "llama",
        {"rope_parameters": rope("llama3", 1000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                 original_max_position_embeddings=32)},
        {"scaling": {"rope_parameters": rope(theta=1000.0)}},
    ),
    "llama_rope_yarn": (
        "llama",
        {"rope_parameters": rope("yarn", factor=8.0, original_max_position_embeddings=16, beta_fast=4.0, beta_slow=1.0)},
        {"scaling": {"rope_parameters": rope()},
         "attention factor": {"rope_parameters": rope("yarn", factor=8.0, original_max_position_embeddings=16, beta_fast=4.0,
                                                      beta_slow=1.0, attention_factor=1.0)}},
    ),
    "mistral": (
        "mistral",
        {"sliding_window": 12, "rope_parameters": rope()},
        {"sliding window": {"sliding_window": None}, "window length": {"sliding_window": 13}},
    ),
    "qwen2": ("qwen2", {"tie_word_embeddings": True, "rms_norm_eps": 1e-6, "rope_parameters": rope(theta=1e6)}, {}),
    "qwen3": (
        "qwen3",
        {"head_dim": 24, "rms_norm_eps": 1e-6, "attention_bias": False, "rope_parameters": rope(theta=1e6)},
        {},
    ),
    "gemma2": (
        "gemma2",
        {"hidden_size": 80, "head_dim": 16, "query_pre_attn_scalar": 40, "sliding_window": 12,
         "attn_logit_softcapping": 3.0, "final_logit_softcapping": 5.0, "tie_word_embeddings": True, "rms_norm_eps": 1e-6,
         "layer_types": ["sliding_attention", "full_attention"], "rope_parameters": rope()},
        {"sliding window": {"sliding_window": 64}, "attention soft-cap": {"attn_logit_softcapping": None},
         "final soft-cap": {"final_logit_softcapping": None}, "query scalar": {"query_pre_attn_scalar": 16}},
    ),
    "gemma3": (
        "gemma3_text",
        {"num_hidden_layers": 3, "num_key_value_heads": 1, "head_dim": 24,
         "query_pre_attn_scalar": 32, "sliding_window": 12, "tie_word_embeddings": True, "rms_norm_eps": 1e-6,
         "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
         "rope_parameters": {"full_attention": rope("linear", 1e6, factor=4.0), "sliding_attention": rope(theta=100.0)}},
        {"sliding window": {"sliding_window": 64}, "query scalar": {"query_pre_attn_scalar": 24},
         "local base": {"rope_parameters": {"full_attention": rope("linear", 1e6, factor=4.0), "sliding_attention": rope()}},
         "global scaling": {"rope_parameters": {"full_attention": rope(theta=1e6), "sliding_attention": rope(theta=100.0)}},
         "pattern": {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}},
    ),
    "phi3": (
        "phi3",
        {"rope_parameters": rope(partial_rotary_factor=1.0), "sliding_window": 16, "original_max_position_embeddings": 128},
        {"sliding window": {"sliding_window": None}},
    ),
    "phi3_longrope_partial": (
        "phi3",
        {"hidden_size": 80, "num_key_value_heads": 4, "original_max_position_embeddings": 32,
         "rope_parameters": rope("longrope", short_factor=SHORT_FACTORS, long_factor=LONG_FACTORS, partial_rotary_factor=0.8,
                                 original_max_position_embeddings=32)},
        {"scaling": {"rope_parameters": rope(partial_rotary_factor=0.8)}},
    ),
    "bert": (
        "bert",
        {"type_vocab_size": 2, "layer_norm_eps": 1e-12, "hidden_act": "gelu", "hidden_dropout_prob": 0.0,
         "attention_probs_dropout_prob": 0.0, "max_position_embeddings": 64, "pad_token_id": 0},
        {"exact gelu": {"hidden_act": "gelu_pytorch_tanh"}},
    ),
}  # fmt: skip


def randomize(model, seed):
    """Weights large enough that attention is peaked and logits spread; norms and biases far from their neutral values."""
    generator = torch.Generator().manual_seed(seed)
    centred = "gemma" in model.config.model_type  # Gemma's norms multiply by 1 + weight
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            if parameter.ndim == 1:
                neutral = 1.0 if name.endswith("weight") and not centred else 0.0
                parameter.copy_(neutral + 0.25 * noise)
            elif "embed" in name:
                parameter.copy_(0.25 * noise)
            elif "lm_head" in name:
                parameter.copy_(0.3 * noise)
            else:
                parameter.copy_(1.5 * noise / parameter.shape[1] ** 0.5)


def build(model_type, settings):
    config = AutoConfig.for_model(model_type, **copy.deepcopy(settings))
    return instantiate(config)


def instantiate(config, attention="eager"):
    auto = AutoModel if config.model_type == "bert" else AutoModelForCausalLM
    extra = {"add_pooling_layer": False} if config.model_type == "bert" else {}
    return auto.from_config(config, dtype=torch.float32, attn_implementation=attention, **extra).eval()


@torch.no_grad()
def run(model, inputs):
    out = model(**inputs)
    return out.last_hidden_state[0] if model.config.model_type == "bert" else out.logits[0]


def legacy(config):
    """The same configuration in the field names of transformers 4."""
    config = copy.deepcopy(config)
    parameters = config.pop("rope_parameters", None)
    if "dtype" in config:
        config["torch_dtype"] = config.pop("dtype")
    if config["model_type"] == "gemma2":  # every other layer, the first one sliding
        del config["layer_types"]
    if config["model_type"] == "gemma3_text":  # every n-th layer full
        config["sliding_window_pattern"] = config.pop("layer_types").index("full_attention") + 1
        config.pop("_sliding_window_pattern", None)
    if parameters is None:
        return config
    if "full_attention" in parameters:  # Gemma 3: one base per kind of layer, scaling for the full layers
        config["rope_local_base_freq"] = parameters["sliding_attention"]["rope_theta"]
        parameters = parameters["full_attention"]
    parameters = dict(parameters)
    config["rope_theta"] = parameters.pop("rope_theta")
    if "partial_rotary_factor" in parameters:
        config["partial_rotary_factor"] = parameters.pop("partial_rotary_factor")
    if config["model_type"] == "phi3":  # there the length stands beside, not inside, and the kind is called type
        parameters.pop("original_max_position_embeddings", None)
        parameters = {"type": parameters.pop("rope_type"), **parameters}
    config["rope_scaling"] = None if "default" in parameters.values() else parameters
    return config


def main():
    for seed, (name, (model_type, settings, features)) in enumerate(FAMILIES.items()):
        settings = {**BASE, **settings}
        if model_type == "bert":
            settings = {k: v for k, v in settings.items() if k not in ("num_key_value_heads", "rms_norm_eps", "tie_word_embeddings")}
        model = build(model_type, settings)
        randomize(model, 1000 + seed)
        generator = torch.Generator().manual_seed(2000 + seed)
        ids = torch.randint(0, settings["vocab_size"], (1, SEQUENCE), generator=generator)
        inputs = {"input_ids": ids}
        if model_type == "bert":
            inputs["token_type_ids"] = (torch.arange(SEQUENCE)[None] >= 20).long()
        out = run(model, inputs)

        folder = OUT / name
        folder.mkdir(parents=True, exist_ok=True)
        golden = {"input_ids": ids[0].int()}
        if model_type == "bert":
            golden |= {"token_type_ids": inputs["token_type_ids"][0].int(), "last_hidden_state": out, "mean_pooled": out.mean(0)}
        else:
            golden["logits"] = out
        if "longrope" in name:  # short sequences use the other list of factors
            golden["input_ids_short"] = ids[0, :24].int()
            golden["logits_short"] = run(model, {"input_ids": ids[:, :24]})
        save_file({k: v.contiguous() for k, v in golden.items()}, folder / "golden.safetensors", metadata={"transformers": transformers.__version__})

        tied = settings.get("tie_word_embeddings", False)
        state = {k: v.contiguous() for k, v in model.state_dict().items() if "position_ids" not in k and not (tied and k == "lm_head.weight")}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        model.config.save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text())
        config["architectures"] = [type(model).__name__]
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        (folder / "config_legacy.json").write_text(json.dumps(legacy(config), indent=2) + "\n")

        def again(config, attention="eager"):
            other = instantiate(config, attention)
            other.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
            return (run(other, inputs) - out).abs().max().item()

        for file in ("config.json", "config_legacy.json"):
            assert again(AutoConfig.for_model(**json.loads((folder / file).read_text()))) == 0.0, (name, file)
        noise = again(model.config, "sdpa") if model._supports_sdpa else float("nan")
        effects = {}
        for feature, off in features.items():
            effects[feature] = again(AutoConfig.for_model(model_type, **copy.deepcopy({**settings, **off})))
            assert effects[feature] > 5e-4, (name, feature, effects)
        size = sum(f.stat().st_size for f in folder.iterdir())
        print(f"{name}: {size} bytes, std {out.std():.3f}, top-1 probability {out.softmax(-1).amax(-1).mean():.3f}, "
              f"another attention kernel: {noise:.1e}, without:", {k: round(v, 4) for k, v in effects.items()})  # fmt: skip


if __name__ == "__main__":
    main()
