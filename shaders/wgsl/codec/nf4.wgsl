// NF4 of QLoRA (arXiv 2305.14314): w = code[q]*absmax, 16 quantiles of a normal distribution, one absmax for a block.
//:import shared/oct
//:import shared/bits
//:import shared/codebook
//:import shared/absmax

fn codec_value(q: Codes, o: u32, s: Scale) -> Oct {
    return Oct(nf4_value(q.a) * s, nf4_value(q.b) * s);
}

//:if CODED
fn codec_symbols(q: Symbols, o: u32, s: Scale) -> Oct {
    return codec_value(codes_of(q), o, s);
}
//:else
fn codec_oct(row: u32, run: u32, runs: u32, o: u32, s: Scale) -> Oct {
    return codec_value(codes4(codec_0[(row * runs + run) * 4u + o]), o, s);
}
//:endif
