// Entropy-coded symbols (layout: engine/src/codec/entropy/plane.rs; decoder: engine/src/codec/entropy/table.rs).
//
// A lane decodes a chunk: coded_start, then for each two symbols coded_refill and twice coded_take of the table's entry for the state,
// wherever the kernel keeps the table; coded_symbols reads it where it is. Entries of the table lead to states inside it: that is checked when a file is read. Reads past the end of a stream are clamped.
//:import shared/bits

// u32: width of a state, word of the stream's start, 1, word of the corrections; the table; bases; corrections; the stream
@group(0) @binding(0) var<storage, read> codec_0: array<u32>;

const CODED_TABLE: u32 = 4u;   // the table's first word
const CODED_STATES: u32 = 2048u; // states of the largest table
const CODED_WORD: u32 = 0x1fffffffu; // bits of a base that are a word of the stream; the others: the unit of its corrections
const CHUNK_RUNS: u32 = 4u;    // runs of a chunk

// Symbols of an octet.
struct Symbols {
    a: vec4<u32>,
    b: vec4<u32>,
}

struct Decoder {
    state: u32,
    window: u32, // the next bits, the first one highest; enough for two symbols after coded_refill
    high: u32,   // two words of the stream, of which `used` bits are used
    low: u32,
    used: u32,   // at most 31 after coded_refill
    next: u32,   // index of the word after them
}

fn coded_word(at: u32) -> u32 {
    return codec_0[min(at, arrayLength(&codec_0) - 1u)];
}

fn coded_refill(d: ptr<function, Decoder>) {
    if ((*d).used >= 32u) {
        (*d).used -= 32u;
        (*d).high = (*d).low;
        (*d).low = coded_word((*d).next);
        (*d).next += 1u;
    }
    (*d).window = ((*d).high << (*d).used) | (((*d).low >> 1u) >> (31u - (*d).used));
}

// Takes the symbol of the state's entry.
fn coded_take(d: ptr<function, Decoder>, entry: u32) -> u32 {
    let n = (entry >> 12u) & 15u;
    (*d).state = (entry & 0xfffu) + (((*d).window >> 1u) >> (31u - n));
    (*d).window <<= n;
    (*d).used += n;
    return entry >> 16u;
}

fn coded_start(row: u32, chunk: u32, runs: u32) -> Decoder {
    let bits = codec_0[0];
    let chunks = (runs + CHUNK_RUNS - 1u) / CHUNK_RUNS;
    let segments = (chunks + 31u) / 32u;
    let segment = chunk / 32u;
    let own = CODED_TABLE + (1u << bits) + row * segments + segment;
    let base = codec_0[own];
    let i = chunk % 32u;
    let length = ((codec_0[own + 1u] - base) & CODED_WORD) * 32u;
    var first = length * i / min(chunks - segment * 32u, 32u);
    if (i > 0u) {
        let at = row * (chunks - segments) + chunk - segment - 1u;
        let correction = i32(codec_0[codec_0[3] + at / 4u] << (24u - 8u * (at % 4u))) >> 24u;
        first += u32(correction << (base >> 29u));
    }
    let at = codec_0[1] + (base & CODED_WORD) + first / 32u;
    var d = Decoder(0u, 0u, coded_word(at), coded_word(at + 1u), first & 31u, at + 2u);
    coded_refill(&d);
    d.state = d.window >> (32u - bits);
    d.used += bits;
    return d;
}

// The next two symbols, by the table where it lies.
fn coded_pair(d: ptr<function, Decoder>) -> vec2<u32> {
    coded_refill(d);
    let first = coded_take(d, codec_0[CODED_TABLE + (*d).state]);
    return vec2<u32>(first, coded_take(d, codec_0[CODED_TABLE + (*d).state]));
}

fn coded_symbols(d: ptr<function, Decoder>) -> Symbols {
    let p = coded_pair(d);
    let q = coded_pair(d);
    let r = coded_pair(d);
    return Symbols(vec4<u32>(p, q), vec4<u32>(r, coded_pair(d)));
}

// Codes of an octet, one a byte.
fn codes_of(q: Symbols) -> Codes {
    return Codes(pack4xU8(q.a), pack4xU8(q.b));
}
