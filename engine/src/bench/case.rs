//! What is measured: kernels, codecs and shapes, each under a name.

use std::fmt;

use crate::codec;

/// A shape that is measured with a codec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// `y = W x`.
    Linear {
        codec: String,
        rows: u32,
        cols: u32,
        /// Columns of x.
        tokens: u32,
    },
    /// Causal attention of as many queries as there are keys.
    Prefill { heads: u32, kv_heads: u32, head_dim: u32, tokens: u32 },
    /// Attention of one query over `keys` keys.
    Decode { heads: u32, kv_heads: u32, head_dim: u32, keys: u32 },
}

/// One measurement to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    pub work: Work,
    /// Part of the short list.
    pub quick: bool,
}

impl fmt::Display for Case {
    /// The name that filters look at, `matvec q4_k 4096x4096 1`: kind, codec, rows x columns, tokens; `attention-decode 32/8x64 4096`:
    /// kind, query heads / KV heads x dimensions, keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.work {
            Work::Linear { codec, rows, cols, tokens } => {
                let kind = if *tokens <= MATVEC_TOKENS { "matvec" } else { "matmul" };
                write!(f, "{kind} {codec} {rows}x{cols} {tokens}")
            }
            Work::Prefill { heads, kv_heads, head_dim, tokens } => {
                write!(f, "attention-prefill {heads}/{kv_heads}x{head_dim} {tokens}")
            }
            Work::Decode { heads, kv_heads, head_dim, keys } => {
                write!(f, "attention-decode {heads}/{kv_heads}x{head_dim} {keys}")
            }
        }
    }
}

impl Case {
    /// Whether one of the patterns fits, or there is none. A pattern's words must all be found in the name, in any order.
    pub fn fits(&self, patterns: &[String]) -> bool {
        let name = self.to_string();
        let all = |pattern: &String| pattern.split_whitespace().all(|word| name.contains(word));
        patterns.is_empty() || patterns.iter().any(all)
    }
}

/// Columns of x up to which a product is called a matvec: a decode step, perhaps of several texts.
const MATVEC_TOKENS: u32 = 8;

/// What a decode step is measured with.
const CODECS: &[&str] = &[
    "f32",
    "f16",
    "bf16",
    "q8_0",
    "q6_k",
    "q5_k",
    "q5_1",
    "q5_0",
    "q4_k",
    "q4_1",
    "q4_0",
    "iq4_xs",
    "iq4_nl",
    "nf4",
    "fp4",
    "mxfp4",
    "nvfp4",
    "q3_k",
    "uniform:bits=3",
    "q2_k",
    "uniform:bits=2",
    "tq2_0",
    "tq1_0",
    "q2_0",
    "q1_0",
    "spqr:bits=3",
    "sparse:25%",
    "sparse:50%",
    "sparse:70%",
    "sparse:90%",
    "sparse:2:4",
    "entropy:bf16",
    "dfloat11",
    "bf16+svd:rank=16",
    "bf16+svd:rank=32",
    "bf16+svd:rank=64",
    "bf16+svd:rank=128",
    "bf16+svd:rank=256",
];

/// What is measured with prompts too.
const PREFILL_CODECS: &[&str] = &[
    "f16",
    "bf16",
    "q8_0",
    "q4_k",
    "q4_0",
    "nf4",
    "uniform:bits=3",
    "sparse:50%",
    "sparse:2:4",
    "entropy:bf16",
    "dfloat11",
    "bf16+svd:rank=64",
];

/// The short list's codecs: one of each family.
const QUICK: &[&str] =
    &["f16", "q8_0", "q4_k", "uniform:bits=3", "sparse:50%", "sparse:2:4", "entropy:bf16", "bf16+svd:rank=64"];

/// Rows and columns of a decode step: SmolLM2-135M's and Llama-3.2-1B's layers, then larger models'.
const MATRICES: &[(u32, u32)] = &[(576, 576), (3072, 576), (2048, 2048), (4096, 4096), (14336, 4096), (8192, 8192)];
/// The shape that everything else varies.
const MATRIX: (u32, u32) = (4096, 4096);

/// Query heads, KV heads, dimensions: SmolLM2-135M, Llama-3.2-1B, Llama-3.1-8B.
const HEADS: &[(u32, u32, u32)] = &[(9, 3, 64), (32, 8, 64), (32, 8, 128)];

/// Everything there is to measure, in the order in which it is.
pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    let mut linear = |codec: &str, (rows, cols): (u32, u32), tokens: u32, quick: bool| {
        // A recipe of this list that did not parse would fail in this module's tests.
        let fits = codec::parse(codec).is_ok_and(|codec| (cols as usize).is_multiple_of(codec.block_len()));
        if fits {
            let quick = quick && QUICK.contains(&codec);
            all.push(Case { work: Work::Linear { codec: codec.to_owned(), rows, cols, tokens }, quick });
        }
    };
    for codec in CODECS {
        for &matrix in MATRICES {
            linear(codec, matrix, 1, matrix == MATRIX);
        }
        for tokens in [2, 4, 8] {
            linear(codec, MATRIX, tokens, false);
        }
    }
    for codec in PREFILL_CODECS {
        for tokens in [64, 128, 256, 512] {
            linear(codec, MATRIX, tokens, tokens == 64);
        }
    }
    for &(heads, kv_heads, head_dim) in HEADS {
        for tokens in [1024, 4096, 16384] {
            let quick = tokens == 1024 && heads == 9;
            all.push(Case { work: Work::Prefill { heads, kv_heads, head_dim, tokens }, quick });
        }
        for keys in [1024, 4096, 16384] {
            let quick = keys == 4096 && heads == 9;
            all.push(Case { work: Work::Decode { heads, kv_heads, head_dim, keys }, quick });
        }
    }
    all
}

/// The cases that fit the patterns; of the short list only, if `quick`.
pub fn chosen(patterns: &[String], quick: bool) -> Vec<Case> {
    cases().into_iter().filter(|case| (case.quick || !quick) && case.fits(patterns)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_every_codec_is_one() {
        for codec in CODECS.iter().chain(PREFILL_CODECS) {
            codec::parse(codec).unwrap();
            assert!(cases().iter().any(|case| case.fits(&[format!("matvec {codec} ")])), "{codec}");
        }
        assert!(QUICK.iter().all(|codec| CODECS.contains(codec) && PREFILL_CODECS.contains(codec)));
        let names: Vec<String> = cases().iter().map(Case::to_string).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        let registered =
            codec::names().codecs.into_iter().filter(|name| !["svd", "lord", "sparse24", "bitmap"].contains(name));
        for name in registered {
            assert!(
                CODECS.iter().any(|codec| codec.split([':', '+']).any(|part| part == name)),
                "{name} is not measured"
            );
        }
    }

    #[test]
    fn patterns_are_words_of_names() {
        let fitting =
            |patterns: &[&str], quick| chosen(&patterns.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>(), quick);
        assert_eq!(fitting(&[], false), cases());
        let one = fitting(&["4096x4096 matvec q4_k 8"], false);
        assert!(!one.is_empty() && one.iter().all(|case| case.to_string().starts_with("matvec q4_k 4096x4096")));
        let both = fitting(&["attention-decode", "bf16+svd"], true);
        assert!(both.iter().any(|c| matches!(c.work, Work::Decode { .. })) && both.iter().all(|c| c.quick));
        assert!(both.iter().any(|c| matches!(c.work, Work::Linear { .. })));
        assert!(fitting(&["q4_k", "q4_k x"], false).len() > 5 && fitting(&["nothing"], false).is_empty());
    }
}
