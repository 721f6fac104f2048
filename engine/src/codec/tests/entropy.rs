//! Entropy coding against planes and streams that another implementation wrote (`tests/golden/entropy.py`), and what it must cost.

use serde::Deserialize;

use super::Lcg;
use crate::codec::{CodecError, Packed, Plane, parse};
use crate::reference::rans64::{self, Model, quantized_cdf};

#[derive(Deserialize)]
struct Golden {
    planes: Vec<GoldenPlane>,
    rans64: Rans64,
}

#[derive(Deserialize)]
struct GoldenPlane {
    codec: String,
    rows: usize,
    cols: usize,
    planes: Vec<String>,
    f32: String,
}

#[derive(Deserialize)]
struct Rans64 {
    cdfs: Vec<GoldenCdf>,
    streams: Vec<Stream>,
    plain: Stream,
}

#[derive(Deserialize)]
struct GoldenCdf {
    pmf: Vec<f32>,
    cdf: Vec<u32>,
}

#[derive(Deserialize)]
struct Stream {
    symbols: Vec<i32>,
    cdfs: Vec<usize>,
    #[serde(default)]
    offsets: Vec<i32>,
    bytes: String,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../../../../tests/golden/entropy.json")).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

fn words(hex: &str) -> Vec<u32> {
    bytes(hex).chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect()
}

fn packed(golden: &GoldenPlane) -> Packed {
    let codec = parse(&golden.codec).unwrap();
    let planes = codec.layout(golden.cols).into_iter().zip(&golden.planes);
    let planes = planes.map(|(layout, hex)| Plane::of(layout, words(hex))).collect();
    Packed::new(codec, golden.rows, golden.cols, planes).unwrap()
}

#[test]
fn planes_of_another_encoder_are_read() {
    for golden in golden().planes {
        let expected: Vec<f32> = words(&golden.f32).into_iter().map(f32::from_bits).collect();
        let packed = packed(&golden);
        assert_eq!(packed.decode(), expected, "{} of {} x {}", golden.codec, golden.rows, golden.cols);
        // Ours holds the same, in no more bits.
        let own = if golden.codec.contains("bf16") {
            packed.codec.encode(&expected, golden.rows, golden.cols).unwrap()
        } else {
            Packed::concat(&[&packed.rows(0..1).unwrap(), &packed.rows(1..golden.rows).unwrap()]).unwrap()
        };
        assert_eq!(own.decode(), expected);
        assert!(own.bytes() <= packed.bytes());
    }
}

#[test]
fn rans64_streams_are_those_of_the_reference() {
    let Rans64 { cdfs, streams, plain } = golden().rans64;
    for GoldenCdf { pmf, cdf } in &cdfs {
        assert_eq!(&quantized_cdf(pmf), cdf);
    }
    for stream in &streams {
        let models =
            || stream.cdfs.iter().zip(&stream.offsets).map(|(&c, &offset)| Model { cdf: &cdfs[c].cdf, offset });
        assert_eq!(rans64::decode(&bytes(&stream.bytes), models()), stream.symbols);
        assert_eq!(rans64::encode(stream.symbols.iter().copied().zip(models())), bytes(&stream.bytes));
    }
    // Without escapes: a symbol of no width takes the escape's place.
    let plainly: Vec<Vec<u32>> = cdfs.iter().map(|golden| [&golden.cdf[..], &[1 << 16]].concat()).collect();
    let models = || plain.cdfs.iter().map(|&c| Model { cdf: &plainly[c], offset: 0 });
    assert_eq!(rans64::decode(&bytes(&plain.bytes), models()), plain.symbols);
    assert_eq!(rans64::encode(plain.symbols.iter().copied().zip(models())), bytes(&plain.bytes));
    // The two streams that the specification prints.
    assert_eq!(streams[0].bytes, "6105ff78314f3e0051f6784fe821399d90217923");
    assert_eq!(plain.bytes, "ae20b17be8c610020650d6d8");
}

#[test]
fn damaged_rans64_streams_end() {
    let Rans64 { cdfs, streams, .. } = golden().rans64;
    let good = bytes(&streams[0].bytes);
    let models =
        || streams[0].cdfs.iter().zip(&streams[0].offsets).map(|(&c, &offset)| Model { cdf: &cdfs[c].cdf, offset });
    for bit in 0..8 * good.len() {
        let mut damaged = good.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(rans64::decode(&damaged, models()).len(), streams[0].symbols.len());
        assert_eq!(rans64::decode(&good[..bit / 8], models()).len(), streams[0].symbols.len());
    }
}

/// A million normal weights: 8 bits of sign and mantissa, 2.55 of information in the exponent (Zhang et al. say 2.6), and what entry points
/// cost. DFloat11 takes 10.8.
#[test]
fn bf16_costs_what_it_should() {
    let mut lcg = Lcg::new(1);
    let weights: Vec<f32> = (0..1 << 20).map(|_| 0.02 * lcg.gaussian()).collect();
    let [plain, coded] = ["bf16", "entropy:bf16"].map(|name| parse(name).unwrap().encode(&weights, 512, 2048).unwrap());
    let bits = |packed: &Packed| packed.decode().iter().map(|w| w.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&coded), bits(&plain));
    assert!(coded.bits_per_weight() < 10.8, "{}", coded.bits_per_weight());
}

/// Every bf16 that is finite, signs of zeros and subnormals among them.
#[test]
fn every_bf16_comes_back() {
    let weights: Vec<f32> =
        (0..=0xffffu32).map(|h| f32::from_bits(h << 16)).map(|w| if w.is_finite() { w } else { 0.0 }).collect();
    let coded = parse("entropy:bf16").unwrap().encode(&weights, 64, 1024).unwrap();
    assert!(coded.decode().iter().zip(&weights).all(|(a, b)| a.to_bits() == b.to_bits()));
}

#[test]
fn codes_cost_less_than_their_width() {
    let mut lcg = Lcg::new(2);
    let weights: Vec<f32> = (0..1 << 20).map(|_| lcg.gaussian()).collect();
    for name in [
        "bf16",
        "uniform:bits=8",
        "uniform:bits=4",
        "uniform:bits=3",
        "uniform:bits=2,group=32",
        "q8_0",
        "q6_k",
        "q5_0",
        "q4_0",
        "nf4",
        "iq4_nl",
    ] {
        let [plain, coded] = [name.to_owned(), format!("entropy:{name}")]
            .map(|name| parse(&name).unwrap().encode(&weights, 512, 2048).unwrap());
        assert_eq!(coded.decode(), plain.decode(), "{name}");
        println!("{name}: {:.3} bits, coded {:.3}", plain.bits_per_weight(), coded.bits_per_weight());
        assert!(coded.bits_per_weight() < plain.bits_per_weight() + 0.15, "{name}: {}", coded.bits_per_weight());
    }
    let gain = |name: &str, cols: usize| {
        let [plain, coded] = [name.to_owned(), format!("entropy:{name}")]
            .map(|name| parse(&name).unwrap().encode(&weights, weights.len() / cols, cols).unwrap().bits_per_weight());
        println!("{name} of {cols} columns: {plain:.3} bits, coded {coded:.3}");
        plain - coded
    };
    // The shorter the groups, the more evenly their codes are used.
    assert!(gain("uniform:bits=4", 4096) > 0.05 && gain("uniform:bits=4,group=256", 4096) > 0.15);
    assert!(gain("uniform:bits=8", 4096) > 0.15 && gain("q8_0", 4096) > 0.05);
}

#[test]
fn matrices_with_different_tables_are_stacked() {
    let codec = parse("entropy:bf16").unwrap();
    let weights = |seed: u32, scale: f32| {
        let mut lcg = Lcg::new(seed);
        (0..40 * 160).map(|_| scale * lcg.gaussian()).collect::<Vec<f32>>()
    };
    let parts = [(1, 1.0), (2, 0.001)].map(|(seed, scale)| codec.encode(&weights(seed, scale), 40, 160).unwrap());
    let stacked = Packed::concat(&[&parts[0], &parts[1]]).unwrap();
    assert_eq!(stacked.decode(), [parts[0].decode(), parts[1].decode()].concat());
}

#[test]
fn what_has_no_codes_is_refused_with_the_reason() {
    for name in ["f32", "f16", "sparse24", "tq1_0", "entropy:bf16"] {
        let error = parse(&format!("entropy:{name}")).unwrap_err();
        assert!(matches!(error, CodecError::Combination { .. }), "{name}");
        assert!(error.to_string().contains("has no integer codes to put shorter ones for"), "{error}");
    }
    assert!(parse("entropy").is_err() && parse("entropy:").is_err());
}

/// Whatever a file's planes hold: an error, or as many weights as the matrix has.
#[test]
fn damaged_planes_decode_to_something() {
    let mut lcg = Lcg::new(4);
    for golden in golden().planes {
        let good = packed(&golden);
        for _ in 0..400 {
            let mut planes = good.planes.clone();
            let len = planes[0].data.len();
            for _ in 0..1 + lcg.byte() % 3 {
                // The head more often than the rest.
                let at = if lcg.byte() < 64 { lcg.byte() as usize % 16 } else { lcg.u16() as usize % len };
                planes[0].data[at] = match lcg.byte() % 3 {
                    0 => planes[0].data[at] ^ 1 << (lcg.byte() % 32),
                    1 => u32::MAX,
                    _ => u32::from(lcg.u16()) << 16 | u32::from(lcg.u16()),
                };
            }
            if lcg.byte() < 32 {
                planes[0].data.truncate(lcg.u16() as usize % len);
            }
            if let Ok(packed) = Packed::new(good.codec.clone(), good.rows, good.cols, planes) {
                assert_eq!(packed.decode().len(), good.rows * good.cols);
                let parts = [packed.rows(0..1).unwrap(), packed.rows(1..good.rows).unwrap()];
                assert_eq!(Packed::concat(&[&parts[0], &parts[1]]).unwrap().decode().len(), good.rows * good.cols);
            }
        }
    }
}

/// Rows that are long in one half and short in the other: chunks lie far from where equally long ones would.
#[test]
fn rows_unlike_themselves_come_back() {
    let mut lcg = Lcg::new(5);
    let (rows, cols) = (6, 5024);
    let weights: Vec<f32> = (0..rows * cols)
        .map(|i| {
            let rare = match i / cols {
                0 => i % cols < 2048,
                1 => i % cols >= 2048,
                row => row == 2 && i % cols < 300,
            };
            if rare { f32::from_bits((60 + u32::from(lcg.byte()) / 2) << 23) } else { 0.0 }
        })
        .collect();
    let coded = parse("entropy:bf16").unwrap().encode(&weights, rows, cols).unwrap();
    assert_eq!(coded.decode(), weights);
    let first = 4 + (1 << coded.planes[0].data[0]);
    let units: Vec<u32> = coded.planes[0].data[first..first + 12].iter().map(|base| base >> 29).collect();
    assert!(units[0] > 0 && units[2] > 0 && units[6..] == [0; 6], "{units:?}");
    let parts = [coded.rows(0..2).unwrap(), coded.rows(2..rows).unwrap()];
    assert_eq!(Packed::concat(&[&parts[0], &parts[1]]).unwrap().decode(), weights);
}

/// Files of before: word 2 was 0.
#[test]
fn the_layout_of_before_is_refused_with_the_remedy() {
    let mut coded = parse("entropy:bf16").unwrap().encode(&[1.0; 64], 2, 32).unwrap();
    coded.planes[0].data[2] = 0;
    let error = Packed::new(coded.codec.clone(), 2, 32, coded.planes).unwrap_err().to_string();
    assert!(error.contains("layout 0") && error.contains("compress the model again"), "{error}");
}
