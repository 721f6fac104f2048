//! Golden vectors, round trips, and streams that lie.

use super::*;
use crate::codec::parse;

/// CRC-32 as zlib computes it.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

struct Lcg(u32);

impl Lcg {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0
    }

    /// Weights with geometrically distributed exponents.
    fn weights(mut self, n: usize, most: u32) -> Vec<u16> {
        let one = |_| {
            let k = (self.next() >> 8).trailing_ones().min(most);
            let sm = self.next();
            ((sm >> 31) << 15 | (124 - k) << 7 | (sm >> 16) & 0x7f) as u16
        };
        (0..n).map(one).collect()
    }
}

fn bytes(weights: &[u16]) -> Vec<u8> {
    weights.iter().flat_map(|w| w.to_le_bytes()).collect()
}

#[test]
fn golden_vector_a() {
    let weights = Lcg(7).weights(40, 6);
    assert_eq!(crc32(&bytes(&weights)), 0xaa47_e16f);
    let group = Group::encode(&weights).unwrap();
    assert_eq!((group.luts.len(), crc32(&group.luts)), (512, 0xf695_75df));
    assert_eq!(group.encoded_exponent, [0x2c, 0x77, 0xd5, 0x08, 0xb7, 0x7f, 0xfb, 0x7e, 0x96, 0x34]);
    assert_eq!(crc32(&group.sign_mantissa), 0xffb3_e43e);
    assert_eq!(group.sign_mantissa[..8], [0xda, 0xce, 0x94, 0x18, 0xe3, 0x80, 0xbf, 0x84]);
    assert_eq!((group.gaps.len(), crc32(&group.gaps), group.gaps[0]), (320, 0xa35c_8281, 1));
    assert_eq!(group.output_positions, [0, 40]);
    group.check().unwrap();
    assert_eq!(group.decode(), weights);
}

#[test]
fn golden_vector_b() {
    let weights = Lcg(3).weights(20_000, 22);
    assert_eq!(crc32(&bytes(&weights)), 0x7b6f_73e4);
    let group = Group::encode(&weights).unwrap();
    assert_eq!((group.luts.len(), crc32(&group.luts)), (3 * 256, 0x4953_6d69));
    assert_eq!((group.encoded_exponent.len(), crc32(&group.encoded_exponent)), (5004, 0x15bc_d822));
    assert_eq!(crc32(&group.sign_mantissa), 0xf163_22ea);
    assert_eq!((group.gaps.len(), crc32(&group.gaps)), (640, 0x38ed_44e0));
    assert_eq!(group.output_positions, [0, 16_378, 20_000]);
    // The tables not counted.
    assert_eq!(format!("{:.4}", (group.bytes() - 768) as f64 / 40_000.0), "0.6414");
    group.check().unwrap();
    assert_eq!(group.decode(), weights);
}

#[test]
fn any_exponents_below_240_come_back() {
    for (seed, n) in [(1, 1), (2, 3), (3, 64), (4, 4097), (5, 70_001)] {
        let mut lcg = Lcg(seed);
        let spread: Vec<u16> =
            (0..n).map(|_| ((lcg.next() >> 16) as u16 % (96 << 7)) | (lcg.next() & 0x8000) as u16).collect();
        let group = Group::encode(&spread).unwrap();
        group.check().unwrap();
        assert_eq!(group.decode(), spread);
        let (a, b) = (n / 3, n - n / 4);
        assert_eq!(group.decode_range(a..b), spread[a..b]);
    }
}

#[test]
fn large_exponents_are_refused() {
    let huge = f32::from_bits(240 << 23);
    assert_eq!(Group::encode(&bf16_bits(&[1.0, huge])), Err(Refused::Exponent { at: 1 }));
    assert_eq!(Group::encode(&[]), Err(Refused::Count));
    let mut weights = vec![0.5; 64];
    weights[33] = huge;
    let error = DFloat11.pack(&bf16_bits(&weights), 2, 32).unwrap_err();
    assert!(error.to_string().starts_with("dfloat11: weight [1, 1] = "), "{error}");
    let kept = parse("dfloat11").unwrap().encode(&weights, 2, 32).unwrap();
    assert_eq!((kept.codec.name(), kept.decode()), ("bf16".into(), weights), "left as it is");
}

#[test]
fn damaged_planes_are_refused_or_decode_to_something() {
    let codec = parse("dfloat11").unwrap();
    let weights: Vec<f32> = Lcg(4).weights(64 * 64, 12).iter().map(|w| half::bf16::from_bits(*w).to_f32()).collect();
    let packed = codec.encode(&weights, 64, 64).unwrap();
    let mut random = Lcg(77);
    let (mut refused, mut accepted) = (0, 0);
    for round in 0..4000 {
        let mut plane = packed.planes[0].clone();
        for _ in 0..1 + round % 3 {
            // Every other one early, where counts and tables are.
            let span = if random.next() >> 31 == 0 { 300 } else { plane.data.len() as u32 };
            let at = ((random.next() >> 16) % span) as usize;
            plane.data[at] ^= match random.next() >> 30 {
                0 => random.next(),
                1 => 0xff << (8 * (random.next() >> 30)),
                _ => 1 << (random.next() >> 27),
            };
        }
        if round % 50 == 0 {
            plane.data.truncate((random.next() >> 16) as usize % plane.data.len());
        }
        match Packed::new(codec.clone(), 64, 64, vec![plane]) {
            Ok(packed) => {
                assert_eq!(packed.decode().len(), 64 * 64);
                accepted += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 500 && accepted > 500, "{refused} refused, {accepted} accepted");
}

#[test]
fn a_million_normal_weights_take_68_percent_at_most() {
    let mut lcg = Lcg(11);
    let mut unit = || (f64::from(lcg.next()) + 0.5) / 4_294_967_296.0;
    let mut normal = || (0.02 * (-2.0 * unit().ln()).sqrt() * (std::f64::consts::TAU * unit()).cos()) as f32;
    let weights: Vec<f32> = (0..1_000_000).map(|_| normal()).collect();
    let bits = bf16_bits(&weights);
    let group = Group::encode(&bits).unwrap();
    assert_eq!(group.decode(), bits);
    let ratio = group.bytes() as f64 / 2e6;
    assert!((0.66..=0.68).contains(&ratio), "{ratio}");
}

#[test]
fn the_entry_in_a_configuration_has_a_pattern_for_modules_that_are_alike() {
    let block =
        |n: u32, layers: &[&str]| (format!("model.layers.{n}"), layers.iter().map(|l| (*l).to_owned()).collect());
    let mut config = serde_json::Map::new();
    let head = ("lm_head".to_owned(), Vec::new());
    config_entry(&mut config, &[block(0, &["mlp.up_proj"]), block(1, &["mlp.up_proj"]), head.clone()]);
    let patterns = &config["dfloat11_config"]["pattern_dict"];
    assert_eq!(*patterns, serde_json::json!({"model\\.layers\\.\\d+": ["mlp.up_proj"], "lm_head": []}));
    config_entry(&mut config, &[block(0, &["mlp.up_proj"]), block(1, &["mlp.down_proj"]), head]);
    let patterns = &config["dfloat11_config"]["pattern_dict"];
    assert_eq!(patterns["model\\.layers\\.1"], serde_json::json!(["mlp.down_proj"]));
}
