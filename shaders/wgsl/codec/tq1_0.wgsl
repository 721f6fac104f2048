// TQ1_0 of ggml: w = (t - 1)*d, five base-3 digits t in a byte, an f16 scale d for 256 weights.
// Digit n of byte b is ((b*3^n mod 256)*3) >> 8.
//:import shared/oct
//:import shared/half
//:import shared/bits

// [rows, 13*runs/8] u32, per 256 weights the 52 bytes of the file: bytes 0..31 hold the digits of runs 0..4 (run n is digit n),
// bytes 32..47 digits 0..4 of 16 weights each (weights 160..239), bytes 48..51 digits 0..3 of 4 weights each (weights 240..255)
@group(0) @binding(0) var<storage, read> codec_0: array<u32>;
// [rows, ceil(runs/16)] u32, two f16 scales a word, each of 8 runs
@group(0) @binding(1) var<storage, read> codec_1: array<u32>;

alias Scale = f32; // d

fn codec_scale(row: u32, run: u32, runs: u32) -> Scale {
    let scales = runs / 8u;
    return half_of(codec_1[row * ((scales + 1u) / 2u) + run / 16u], (run / 8u) & 1u);
}

// Digit n of four bytes, one a byte: even and odd bytes are multiplied in 16-bit lanes.
fn digits(bytes: u32, n: u32) -> u32 {
    let power = select((0x1b090301u >> (8u * n)) & 0xffu, 81u, n == 4u); // 3^n
    let even = ((((bytes & 0x00ff00ffu) * power) & 0x00ff00ffu) * 3u) >> 8u;
    let odd = (((((bytes >> 8u) & 0x00ff00ffu) * power) & 0x00ff00ffu) * 3u) & 0x03000300u;
    return (even & 0x00030003u) | odd;
}

fn codec_oct(row: u32, run: u32, runs: u32, o: u32, s: Scale) -> Oct {
    let first = (row * (runs / 8u) + run / 8u) * 13u;
    let r = run & 7u;
    // Runs 5, 6, 7 are six half runs of which the last one lies in bytes 48..51.
    let half_run = (r - 5u) * 2u + o / 2u;
    let wide = r < 5u;
    let last = !wide && half_run == 5u;
    let narrow_word = select(8u + 2u * (o & 1u), 12u, last);
    let word = first + select(narrow_word, 2u * o, wide);
    let digit = select(select(half_run, 2u * (o & 1u), last), r, wide);
    let step = select(1u, 0u, last); // bytes 48..51 hold both halves of an octet, as two digits
    let q = Codes(digits(codec_0[word], digit), digits(codec_0[word + step], digit + 1u - step));
    return oct_centered(q, 1.0, s);
}
