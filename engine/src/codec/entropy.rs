//! Entropy coding on top of another codec: `entropy:bf16`, `entropy:uniform:bits=4`, `entropy:q4_k` …
//!
//! The integers that a codec stores are not equally frequent: the exponents of bf16 weights have 2.5 to 2.7 bits of information in
//! 8 (Zhang et al., DFloat11, arXiv 2504.11651), the codes of a 4-bit quantizer 3.3 to 3.8. They are coded without loss, with one
//! code for the matrix and a stream of its own for every 128 weights of a row, so that a kernel decodes them in registers where it
//! multiplies. What is left of the codec stays as it is: scales, and the signs and mantissas of bf16.
//!
//! Planes: the symbols ([`plane`]), then those of the codec without its codes. Of bf16 that is one: eight words a run, each with sign
//! and mantissa of four weights, so placed that one shift and one mask bring either to its place in an f32 ([`SIGN_MANTISSA`]).

mod plane;
mod prefix;
mod table;

use std::ops::Range;
use std::sync::Arc;

use self::plane::Coded;
use super::rows::{check_cols, check_weights, for_each_chunk};
use super::{Calibrates, Calibration, Codec, CodecError, CodecRef, Packed, Plane, PlaneLayout, RUN, bits};

/// What of a codec's first plane can be entropy-coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Symbols {
    /// All of it: bit-sliced codes of so many bits.
    Codes(usize),
    /// The exponents of bf16 weights.
    Exponents,
}

impl Symbols {
    /// Bits of an element of the plane, whose rows are runs of 32.
    pub fn plane_bits(&self) -> usize {
        match self {
            Self::Codes(bits) => *bits,
            Self::Exponents => 16,
        }
    }
}

#[derive(Debug)]
struct Entropy {
    base: CodecRef,
    symbols: Symbols,
}

/// Builds the wrapper around a codec.
pub(super) fn wrap(base: CodecRef) -> Result<CodecRef, CodecError> {
    let symbols = base.symbols().ok_or_else(|| CodecError::Combination {
        left: "entropy".into(),
        right: base.name(),
        why: format!(
            "{} has no integer codes to put shorter ones for; those that do: bf16, uniform, nf4, fp4, q4_0 to q8_0, q4_k, q5_k, \
             q6_k, iq4_nl",
            base.name()
        ),
    })?;
    Ok(Arc::new(Entropy { base, symbols }))
}

/// Where sign (first) and mantissa (low 7 bits) of the four weights of a word lie: rotated left by so much, the sign is bit 31 and the
/// mantissa bits 16 to 22, which is where an f32 has them.
const SIGN_MANTISSA: [u32; 4] = [0, 8, 16, 24];
const SIGN_MANTISSA_MASK: u32 = 0x807f_0000;

impl Entropy {
    /// Bits of a symbol.
    fn symbol_bits(&self) -> u32 {
        match self.symbols {
            Symbols::Codes(bits) => bits as u32,
            Symbols::Exponents => 8,
        }
    }

    /// Words of a row of the codec's first plane.
    fn code_words(&self, cols: usize) -> usize {
        cols.div_ceil(RUN) * self.symbols.plane_bits()
    }

    /// The symbols of a row of the codec's first plane.
    fn read(&self, words: &[u32], symbols: &mut [u8]) {
        match self.symbols {
            Symbols::Codes(bits) => bits::unpack(bits, words, symbols),
            Symbols::Exponents => {
                for (i, symbol) in symbols.iter_mut().enumerate() {
                    *symbol = (words[i / 2] >> (16 * (i % 2)) >> 7) as u8;
                }
            }
        }
    }

    /// Codes what the codec packed.
    fn pack(&self, packed: &Packed) -> Result<Packed, CodecError> {
        let (rows, cols) = (packed.rows, packed.cols);
        let [codes, rest @ ..] = packed.planes.as_slice() else {
            return Err(CodecError::Layout { codec: self.base.name(), plane: 0, rows, cols });
        };
        let words = self.code_words(cols);
        let row = |row: usize| &codes.data[row * words..][..words];
        let symbols = cols.next_multiple_of(RUN);
        let coded = Coded::encode(rows, symbols, |r, symbols| self.read(row(r), symbols));
        let coded = coded.ok_or_else(|| CodecError::TooWide { codec: self.name(), cols, most: symbols / 2 })?;
        let mut planes = vec![Plane::of(PlaneLayout::VARIABLE, coded)];
        if self.symbols == Symbols::Exponents {
            let mut plane = Plane::zeroed(PlaneLayout::per_row(words / 2), rows);
            for_each_chunk(&mut plane.data, words / 2, |r, out| {
                for (i, pair) in row(r).iter().enumerate() {
                    for (half, bf16) in [pair & 0xffff, pair >> 16].into_iter().enumerate() {
                        let rotated = (bf16 << 16 & SIGN_MANTISSA_MASK).rotate_right(SIGN_MANTISSA[(2 * i + half) % 4]);
                        out[i / 2] |= rotated;
                    }
                }
            });
            planes.push(plane);
        }
        planes.extend(rest.iter().cloned());
        Ok(Packed { codec: self.myself(), rows, cols, planes })
    }

    /// What the codec packed.
    fn unpack(&self, packed: &Packed) -> Result<Packed, CodecError> {
        let (rows, cols) = (packed.rows, packed.cols);
        let coded = self.coded(packed)?;
        let words = self.code_words(cols);
        let layout = PlaneLayout::per_row(words);
        let mut codes = Plane::zeroed(layout, rows);
        let (own, rest) = match self.symbols {
            Symbols::Codes(_) => (&[][..], &packed.planes[1..]),
            Symbols::Exponents => packed.planes[1..].split_at(1),
        };
        for_each_chunk(&mut codes.data, words, |r, out| {
            let mut symbols = vec![0; cols.next_multiple_of(RUN)];
            coded.decode_row(r, &mut symbols);
            match self.symbols {
                Symbols::Codes(bits) => bits::pack(bits, &symbols, out),
                Symbols::Exponents => {
                    let rest = &own[0].data[r * (words / 2)..][..words / 2];
                    for (i, &exponent) in symbols.iter().enumerate() {
                        let rest = rest[i / 4].rotate_left(SIGN_MANTISSA[i % 4]) & SIGN_MANTISSA_MASK;
                        out[i / 2] |= (rest >> 16 | u32::from(exponent) << 7) << (16 * (i % 2));
                    }
                }
            }
        });
        let mut planes = vec![codes];
        planes.extend(rest.iter().cloned());
        Ok(Packed { codec: self.base.clone(), rows, cols, planes })
    }

    fn coded<'a>(&self, packed: &'a Packed) -> Result<Coded<'a>, CodecError> {
        let cols = packed.cols.next_multiple_of(RUN);
        let words = packed.planes.first().map_or(&[][..], |plane| &plane.data);
        Coded::read(words, packed.rows, cols, self.symbol_bits()).map_err(|what| CodecError::Content {
            codec: self.name(),
            plane: 0,
            what,
        })
    }

    fn myself(&self) -> CodecRef {
        Arc::new(Self { base: self.base.clone(), symbols: self.symbols })
    }
}

impl Codec for Entropy {
    fn name(&self) -> String {
        format!("entropy:{}", self.base.name())
    }

    fn module(&self) -> &'static str {
        self.base.module()
    }

    fn defines(&self) -> Vec<(&'static str, u32)> {
        let mut defines = self.base.defines();
        defines.push(("CODED", 1));
        defines
    }

    fn block_len(&self) -> usize {
        self.base.block_len()
    }

    fn layout(&self, cols: usize) -> Vec<PlaneLayout> {
        let own = match self.symbols {
            Symbols::Codes(_) => None,
            Symbols::Exponents => Some(PlaneLayout::per_row(self.code_words(cols) / 2)),
        };
        let rest = self.base.layout(cols).into_iter().skip(1);
        [PlaneLayout::VARIABLE].into_iter().chain(own).chain(rest).collect()
    }

    fn planned_bytes(&self, rows: usize, cols: usize) -> u64 {
        self.base.planned_bytes(rows, cols)
    }

    fn encode(&self, weights: &[f32], rows: usize, cols: usize) -> Result<Packed, CodecError> {
        check_weights(self, weights, rows, cols)?;
        self.pack(&self.base.encode(weights, rows, cols)?)
    }

    fn calibrates(&self) -> Calibrates {
        self.base.calibrates()
    }

    fn encode_for(
        &self,
        weights: &[f32],
        rows: usize,
        cols: usize,
        calibration: Option<&Calibration>,
    ) -> Result<Packed, CodecError> {
        check_weights(self, weights, rows, cols)?;
        self.pack(&self.base.encode_for(weights, rows, cols, calibration)?)
    }

    fn decode(&self, packed: &Packed) -> Vec<f32> {
        // A packed matrix has been checked when it was put together.
        self.unpack(packed).map(|base| base.decode()).unwrap_or_else(|_| vec![0.0; packed.rows * packed.cols])
    }

    fn check(&self, packed: &Packed) -> Result<(), CodecError> {
        check_cols(self, packed.cols)?;
        self.coded(packed).map(|_| ())
    }

    fn cut(&self, packed: &Packed, range: Range<usize>) -> Result<Packed, CodecError> {
        let coded = self.coded(packed)?.cut(range.clone());
        let coded = coded.ok_or_else(|| CodecError::Layout {
            codec: self.name(),
            plane: 0,
            rows: packed.rows,
            cols: packed.cols,
        })?;
        let mut planes = vec![Plane::of(PlaneLayout::VARIABLE, coded)];
        let rest = Packed { planes: packed.planes[1..].to_vec(), ..packed.clone() };
        planes.extend(rest.cut(range.clone())?.planes);
        Ok(Packed { codec: packed.codec.clone(), rows: range.len(), cols: packed.cols, planes })
    }

    fn stack(&self, parts: &[&Packed]) -> Option<Packed> {
        let (first, rows) = (parts.first()?, parts.iter().map(|part| part.rows).sum());
        let coded: Vec<_> =
            parts.iter().map(|part| Some((self.coded(part).ok()?, part.rows))).collect::<Option<_>>()?;
        if let Some(words) = Coded::stack(&coded) {
            let rest: Vec<Packed> =
                parts.iter().map(|part| Packed { planes: part.planes[1..].to_vec(), ..(*part).clone() }).collect();
            let rest = Packed::stack(&rest.iter().collect::<Vec<_>>())?;
            let planes = [Plane::of(PlaneLayout::VARIABLE, words)].into_iter().chain(rest.planes).collect();
            return Some(Packed { codec: first.codec.clone(), rows, cols: first.cols, planes });
        }
        // Matrices with different tables get one for all.
        let parts: Vec<Packed> = parts.iter().map(|part| self.unpack(part).ok()).collect::<Option<_>>()?;
        self.pack(&Packed::concat(&parts.iter().collect::<Vec<_>>())?).ok()
    }

    fn encodes(&self) -> bool {
        self.base.encodes()
    }

    fn coded(&self) -> Option<(&CodecRef, Symbols)> {
        Some((&self.base, self.symbols))
    }

    fn fallback(&self) -> CodecRef {
        let base = self.base.fallback();
        wrap(base.clone()).unwrap_or(base)
    }
}
