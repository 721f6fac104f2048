"""Small vocabularies of every kind, and the ids that Hugging Face transformers gives to nasty texts.

    python make.py [--smollm2 SmolLM2-135M-Instruct.Q4_1.gguf]

Trains one tiny tokenizer a kind with the libraries that real models' tokenizers are trained with (`tokenizers`,
`sentencepiece`), wraps it as transformers wraps the real ones, and writes per kind
  NAME.gguf            its metadata as llama.cpp's converter writes it, no tensors
  NAME.json            its tokenizer.json
  NAME.ids.json        per text of texts.json the ids: "special" with the tokens around a text and with control tokens
                       recognised, "plain" without either; "decoded": the text of the "plain" ids (more: write_ids)
`--smollm2` writes smollm2.ids.json for that file's vocabulary in the same form.

Training text: assets/text/eval.txt and the nasty texts themselves, so that the merges reach into every script.
"""

import argparse
import json
import tempfile
from pathlib import Path

import gguf
import sentencepiece as spm
from nasty import texts
from sentencepiece import sentencepiece_model_pb2 as spm_pb2
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

HERE = Path(__file__).parent
ASSETS = HERE.parent.parent.parent / "assets"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT4O = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def austen():
    return (ASSETS / "text" / "eval.txt").read_text()[:40_000].split("\n\n")


def training_texts():
    return austen() + [t for t in texts() if "<|" not in t and "\x00" not in t] * 2


def write_gguf(name, model, tokens, kinds, **rest):
    """`rest`: further keys of tokenizer.ggml, by their last part."""
    writer = gguf.GGUFWriter(HERE / f"{name}.gguf", "llama")
    writer.add_tokenizer_model(model)
    pre = rest.pop("pre", None)
    if pre:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    for key, value in rest.items():
        key = f"tokenizer.ggml.{key}"
        if isinstance(value, bytes):
            writer.add_precompiled_charsmap(value)
        elif isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        else:
            writer.add_array(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_ids(name, tokenizer, backend, original=None):
    """`backend` is the `tokenizers.Tokenizer` inside: what "plain" asks of it, transformers calls split_special_tokens.
    With `original`, the sentencepiece model, "plain" is its answer where the two disagree on what text is, "crate" what `backend` makes of the same, and "differs"
    lists the texts whose characters the two libraries normalize differently."""
    out = {"special": [], "plain": [], "decoded": [], "crate": [], "differs": []}
    for index, text in enumerate(texts()):
        out["special"].append(tokenizer(text).input_ids)
        backend.encode_special_tokens = True
        plain = backend.encode(text, add_special_tokens=False).ids
        backend.encode_special_tokens = False
        assert plain == tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids, (name, text)
        if original:
            out["crate"].append(plain)
            normalized = backend.normalizer.normalize_str(text).replace(" ", "\u2581").strip("\u2581")
            if normalized != original.normalize(text).strip("\u2581"):
                out["differs"].append(index)
            # Where only rounding tells the two apart (hundreds of "a"), transformers, which adds scores in f64, is right.
            if index in out["differs"] or any(token.content in text for token in backend.get_added_tokens_decoder().values()):
                plain = original.encode(text)
        out["plain"].append(plain)
        out["decoded"].append(tokenizer.decode(plain, skip_special_tokens=True, clean_up_tokenization_spaces=False))
    out = {key: value for key, value in out.items() if value}
    (HERE / f"{name}.ids.json").write_text(json.dumps(out, separators=(",", ":")))
    print(name, "tokens:", tokenizer.vocab_size, "ids:", sum(map(len, out["special"])), "differs:", out.get("differs"))


def write_json(name, backend):
    data = json.loads(backend.to_str())
    (HERE / f"{name}.json").write_text(json.dumps(data, ensure_ascii=False, separators=(",", ":")))


def byte_level(name, pre, pre_tokenizer, control, normalizer=None, ignore_merges=False, bos=None, alphabet=True, size=1000):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = normalizer, pre_tokenizer, decoders.ByteLevel()
    initial = pre_tokenizers.ByteLevel.alphabet() if alphabet else []
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=initial, show_progress=False)
    tokenizer.train_from_iterator(training_texts() if alphabet else austen(), trainer)
    # Llama 3 and Qwen have their control tokens behind the vocabulary, SmolLM in front: order matters to nobody else.
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in control])
    tokenizer.add_tokens([AddedToken("<tool>", special=False, normalized=False)])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    state = json.loads(tokenizer.to_str())
    tokens = [t for t, _ in sorted(tokenizer.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1])]
    kinds = [CONTROL if t in control else USER_DEFINED if t == "<tool>" else NORMAL for t in tokens]
    merges = [" ".join(pair) for pair in state["model"]["merges"]]
    rest = {"add_bos_token": True, "bos_token_id": tokenizer.token_to_id(bos)} if bos else {"add_bos_token": False}
    write_gguf(name, "gpt2", tokens, kinds, pre=pre, merges=merges, eos_token_id=tokenizer.token_to_id(control[-1]), **rest)
    write_json(name, tokenizer)
    write_ids(name, PreTrainedTokenizerFast(tokenizer_object=tokenizer), tokenizer)


def train_spm(folder, model_type, user_defined=(), **options):
    prefix = str(Path(folder) / "tokenizer")
    source = Path(folder) / "text.txt"
    lines = [line for text in training_texts() for line in text.split("\n") if line.strip() and "\0" not in line]
    source.write_text("\n".join(lines))
    spm.SentencePieceTrainer.train(
        input=str(source), model_prefix=prefix, model_type=model_type, user_defined_symbols=list(user_defined),
        max_sentence_length=100_000, num_threads=1, minloglevel=2, hard_vocab_limit=False, **options,
    )
    model = spm_pb2.ModelProto()
    model.ParseFromString(Path(prefix + ".model").read_bytes())
    return prefix + ".model", model


def spm_parts(model):
    tokens = [p.piece for p in model.pieces]
    kinds = [{1: NORMAL, 2: UNKNOWN, 3: CONTROL, 4: USER_DEFINED, 5: UNUSED, 6: BYTE}[p.type] for p in model.pieces]
    return tokens, kinds, [p.score for p in model.pieces]


def llama2():
    with tempfile.TemporaryDirectory() as folder:
        path, model = train_spm(
            folder, "bpe", vocab_size=900, byte_fallback=True, normalization_rule_name="identity", split_digits=True,
            remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, character_coverage=0.999,
        )
        tokens, kinds, scores = spm_parts(model)
        write_gguf("llama2", "llama", tokens, kinds, scores=scores, bos_token_id=1, eos_token_id=2, unknown_token_id=0,
                   add_bos_token=True, add_eos_token=False)
        tokenizer = llama_backend(tokens, scores, prefix=True, special=["<unk>", "<s>", "</s>"], bos="<s>")
        write_json("llama2", tokenizer)
        write_ids("llama2", PreTrainedTokenizerFast(tokenizer_object=tokenizer), tokenizer)
        compare_with_sentencepiece("llama2", path, tokenizer)


def gemma():
    spaces = ["\u2581" * n for n in range(2, 17)]
    user_defined = ["<start_of_turn>", "<end_of_turn>", "\n\n", "\n\n\n", "<b>", *spaces]
    with tempfile.TemporaryDirectory() as folder:
        path, model = train_spm(
            folder, "bpe", user_defined, vocab_size=900, byte_fallback=True, normalization_rule_name="identity",
            split_digits=True, remove_extra_whitespaces=False, add_dummy_prefix=False, pad_id=0, eos_id=1, bos_id=2, unk_id=3,
            allow_whitespace_only_pieces=True, character_coverage=0.999,
        )
        tokens, kinds, scores = spm_parts(model)
        turns = ["<start_of_turn>", "<end_of_turn>"]
        # llama.cpp's converter: turns are control tokens, user-defined spaces are written as spaces.
        kinds = [CONTROL if t in turns else k for t, k in zip(tokens, kinds)]
        written = [t.replace("\u2581", " ") if k == USER_DEFINED else t for t, k in zip(tokens, kinds)]
        write_gguf("gemma", "llama", written, kinds, scores=scores, bos_token_id=2, eos_token_id=1, unknown_token_id=3,
                   padding_token_id=0, add_bos_token=True, add_eos_token=False, add_space_prefix=False)
        tokenizer = llama_backend(tokens, scores, prefix=False, special=["<pad>", "</s>", "<s>", "<unk>", *turns], bos="<s>",
                                  added=[t for t, k in zip(tokens, kinds) if k == USER_DEFINED])
        write_json("gemma", tokenizer)
        write_ids("gemma", PreTrainedTokenizerFast(tokenizer_object=tokenizer), tokenizer)
        compare_with_sentencepiece("gemma", path, tokenizer)


def llama_backend(tokens, scores, prefix, special, bos, added=()):
    """The `tokenizer.json` of Llama 2 (prefix) and Gemma (no prefix), as published."""
    vocab = {t: i for i, t in enumerate(tokens)}
    merges = []
    for token, score in zip(tokens, scores):
        for at in range(1, len(token)):
            left, right = token[:at], token[at:]
            if left in vocab and right in vocab and token not in special:
                merges.append((-score, vocab[left], vocab[right], (left, right)))
    tokenizer = Tokenizer(models.BPE(vocab, [m[-1] for m in sorted(merges)], unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    replace = normalizers.Replace(" ", "\u2581")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), replace]) if prefix else replace
    parts = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(parts + [decoders.Strip(" ", 1, 0)] if prefix else parts)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in added])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, vocab[bos])]
    )
    return tokenizer


def t5():
    with tempfile.TemporaryDirectory() as folder:
        path, model = train_spm(folder, "unigram", vocab_size=900, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, character_coverage=0.999)
        tokens, kinds, scores = spm_parts(model)
        charsmap = model.normalizer_spec.precompiled_charsmap
        write_gguf("t5", "t5", tokens, kinds, scores=scores, eos_token_id=1, unknown_token_id=2, padding_token_id=0,
                   add_bos_token=False, add_eos_token=True, add_space_prefix=True, remove_extra_whitespaces=True,
                   precompiled_charsmap=bytes(charsmap))
        tokenizer = Tokenizer(models.Unigram(list(zip(tokens, scores)), unk_id=2, byte_fallback=False))
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Precompiled(charsmap), normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), "\u2581")]
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("\u2581", "always")
        tokenizer.decoder = decoders.Metaspace("\u2581", "always")
        tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ["<pad>", "</s>", "<unk>"]])
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
        )
        write_json("t5", tokenizer)
        original = spm.SentencePieceProcessor(model_file=path)
        write_ids("t5", PreTrainedTokenizerFast(tokenizer_object=tokenizer), tokenizer, original)


def bert():
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    trainer = trainers.WordPieceTrainer(vocab_size=1000, special_tokens=special, show_progress=False)
    # GGUF's spelling has no room for U+2581 in a vocabulary.
    tokenizer.train_from_iterator([t for t in training_texts() if "\u2581" not in t], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokens = [t for t, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
    # llama.cpp's converter: a space in front of words instead of ## in front of their continuations.
    written = [t if t in special else t[2:] if t.startswith("##") else "\u2581" + t for t in tokens]
    kinds = [CONTROL if t in special else NORMAL for t in tokens]
    write_gguf("bert", "bert", written, kinds, bos_token_id=2, eos_token_id=3, unknown_token_id=1, padding_token_id=0,
               seperator_token_id=3, cls_token_id=2, mask_token_id=4)
    write_json("bert", tokenizer)
    write_ids("bert", PreTrainedTokenizerFast(tokenizer_object=tokenizer), tokenizer)


def compare_with_sentencepiece(name, path, tokenizer):
    """How many texts the original library encodes otherwise than transformers' conversion."""
    original = spm.SentencePieceProcessor(model_file=path)
    tokenizer.encode_special_tokens = True
    other = [t for t in texts() if original.encode(t) != tokenizer.encode(t, add_special_tokens=False).ids]
    print(f"  {name}: sentencepiece differs on {len(other)} of {len(texts())} texts")
    for t in other[:5]:
        print("   ", repr(t[:60]))
    tokenizer.encode_special_tokens = False


def smollm2(path):
    """SmolLM's published tokenizer with the vocabulary and merges of its GGUF file. (transformers' own GGUF import knows
    nothing of `tokenizer.ggml.pre`: it leaves out the step that splits digits off.)"""
    fields = gguf.GGUFReader(path).fields
    tokens, kinds, merges = (fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "token_type", "merges"))
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, [tuple(m.split(" ")) for m in merges]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, k in zip(tokens, kinds) if k == CONTROL])
    write_ids("smollm2", PreTrainedTokenizerFast(tokenizer_object=tokenizer), tokenizer)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--smollm2")
    arguments = parser.parse_args()
    (HERE / "texts.json").write_text(json.dumps(texts(), separators=(",", ":")))
    split = lambda pattern: pre_tokenizers.Sequence(  # noqa: E731
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), whole])
    chat = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    byte_level("gpt2", "gpt-2", whole, ["<|endoftext|>"])
    byte_level("smollm", "smollm", digits, chat, alphabet=False)
    byte_level("qwen2", "qwen2", split(QWEN2), chat, normalizer=normalizers.NFC())
    byte_level("tekken", "tekken", split(TEKKEN), ["<unk>", "<s>", "</s>"], ignore_merges=True, bos="<s>")
    byte_level("gpt4o", "gpt-4o", split(GPT4O), chat)
    byte_level("llama3", "llama-bpe", split(LLAMA3), ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
               ignore_merges=True, bos="<|begin_of_text|>")
    llama2()
    gemma()
    t5()
    bert()
    if arguments.smollm2:
        smollm2(arguments.smollm2)
