// What a codec module with option CODED imports in place of its plane of codes (shared/coded). The module has
//
//   fn codec_symbols(q: Symbols, o: u32, s: Scale) -> Oct      octet o of a run, from its symbols
//
// which linear/coded calls. codec_oct is for kernels that read a few octets here and there: it decodes from the chunk's start each time.
//:import shared/coded
//:import shared/oct

fn codec_oct(row: u32, run: u32, runs: u32, o: u32, s: Scale) -> Oct {
    var d = coded_start(row, run / CHUNK_RUNS, runs);
    var q = coded_symbols(&d);
    for (var i = (run % CHUNK_RUNS) * 4u + o; i > 0u; i--) {
        q = coded_symbols(&d);
    }
    return codec_symbols(q, o, s);
}
