//! The methods in words, for people who choose one: what each does, and which parameters it has.
//!
//! In: nothing. Out: [`methods`]: the registry's codecs that can encode, in its order, then combinations worth trying. A codec that
//! nobody described yet is listed by its name alone. What [`Method::spelling`] makes is a recipe like any other.

mod compose;

use super::spec::names;
use super::{RUN, Recipe, parse};

pub use compose::{Composition, Part, Place};

/// What methods have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Every weight a number of its own.
    Dense,
    /// Integers with a scale for each short block or group.
    Integers,
    /// Integers with scales that are quantized themselves.
    Superblocks,
    /// Indices into a table of values.
    Codebooks,
    /// Minus one, zero, one.
    Ternary,
    /// Weights that are zero take no room.
    Sparse,
    /// Thin matrices, instead of a large one or beside it.
    LowRank,
    /// The same model to the bit.
    Lossless,
    /// Everything else.
    Other,
}

impl Family {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dense => "Dense",
            Self::Integers => "Integers",
            Self::Superblocks => "Superblocks",
            Self::Codebooks => "Codebooks",
            Self::Ternary => "Ternary",
            Self::Sparse => "Sparse",
            Self::LowRank => "Low rank",
            Self::Lossless => "Entropy coded",
            Self::Other => "Other",
        }
    }
}

/// The values that a parameter can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// One of these; the first is taken when nobody chooses.
    OneOf(&'static [&'static str]),
    /// One of these, written without the parameter's name; the first is taken when nobody chooses.
    Bare(&'static [&'static str]),
    /// On or off, and which of them when nobody chooses.
    Switch(bool),
}

/// A parameter of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in a spelling.
    pub name: &'static str,
    /// What it changes, in a few words.
    pub what: &'static str,
    /// What it can be.
    pub values: Values,
    /// Written even where it is the default, since the method itself has none.
    pub always: bool,
}

impl Parameter {
    /// The value when nobody chooses.
    pub fn default(&self) -> &'static str {
        match self.values {
            Values::OneOf(values) | Values::Bare(values) => values.first().copied().unwrap_or_default(),
            Values::Switch(true) => "on",
            Values::Switch(false) => "off",
        }
    }
}

/// A compression method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method {
    /// Its name in a spelling, or the whole spelling of a combination.
    pub name: &'static str,
    /// Where it belongs.
    pub family: Family,
    /// What it does, in one sentence; empty where nobody described it.
    pub what: &'static str,
    /// Its parameters.
    pub parameters: &'static [Parameter],
}

impl Method {
    /// The spelling with these values of its parameters, in their order; where there are fewer, the defaults.
    pub fn spelling(&self, values: &[String]) -> String {
        let value =
            |(i, p): (usize, &Parameter)| (*p, values.get(i).cloned().unwrap_or_else(|| p.default().to_owned()));
        let options = self.parameters.iter().enumerate().map(value).filter_map(|(p, value)| match p.values {
            _ if value == p.default() && !p.always => None,
            Values::Bare(_) => Some(value),
            Values::Switch(_) if value == "on" => Some(p.name.to_owned()),
            _ => Some(format!("{}={value}", p.name)),
        });
        let options: Vec<String> = options.collect();
        if options.is_empty() { self.name.to_owned() } else { format!("{}:{}", self.name, options.join(",")) }
    }

    /// The values of its parameters in a spelling; `None` for a spelling of another method, or of more than one.
    pub fn values(&self, spelling: &str) -> Option<Vec<String>> {
        if spelling.trim() == self.name {
            return Some(self.parameters.iter().map(|p| p.default().to_owned()).collect());
        }
        let (name, options) = spelling.split_once(':').unwrap_or((spelling, ""));
        let bare = self.parameters.iter().any(|p| matches!(p.values, Values::Bare(_)));
        if name.trim() != self.name || options.contains('+') || options.contains(':') && !bare {
            return None;
        }
        let given: Vec<(&str, &str)> = options
            .split(',')
            .map(|option| option.split_once('=').unwrap_or((option, "on")))
            .map(|(name, value)| (name.trim(), value.trim()))
            .collect();
        let named = |name: &str| self.parameters.iter().any(|p| !matches!(p.values, Values::Bare(_)) && p.name == name);
        let value = |p: &Parameter| match p.values {
            // What has no other parameter's name.
            Values::Bare(_) => {
                let own = options
                    .split(',')
                    .map(str::trim)
                    .find(|option| !option.is_empty() && !named(option.split('=').next().unwrap_or_default().trim()));
                own.unwrap_or(p.default()).to_owned()
            }
            _ => given.iter().find(|(name, _)| *name == p.name).map_or(p.default(), |(_, value)| value).to_owned(),
        };
        // An option that nobody described cannot be kept; one without a described name is the bare parameter's value.
        let unnamed = given.iter().filter(|(name, _)| !named(name)).count();
        if !options.is_empty() && unnamed > usize::from(bare) {
            return None;
        }
        Some(self.parameters.iter().map(value).collect())
    }
}

/// The methods that can compress, in the registry's order, then combinations of them.
pub fn methods() -> Vec<Method> {
    let encodes = |method: &Method| Recipe::parse(&method.spelling(&[])).is_ok();
    compose::described(&names().codecs, DESCRIBED).into_iter().chain(COMBINED.iter().copied()).filter(encodes).collect()
}

const fn plain(name: &'static str, family: Family, what: &'static str) -> Method {
    Method { name, family, what, parameters: &[] }
}

const fn optional(name: &'static str, what: &'static str, values: Values) -> Parameter {
    Parameter { name, what, values, always: false }
}

const fn required(name: &'static str, what: &'static str, values: Values) -> Parameter {
    Parameter { name, what, values, always: true }
}

const BLOCK: Parameter = optional(
    "block",
    "weights that share a scale",
    Values::OneOf(&["64", "32", "128", "256", "512", "1024", "2048", "4096"]),
);
const VALUES: Parameter = optional("values", "how kept weights are stored", Values::OneOf(&["bf16", "f16"]));
const FACTORS: Parameter =
    optional("factors", "how the thin matrices are stored", Values::OneOf(&["bf16", "f16", "q8_0", "q4_0"]));
const RANK: Parameter =
    required("rank", "numbers between the thin matrices", Values::OneOf(&["32", "8", "16", "64", "128", "256", "512"]));
const SIZE: Parameter = required(
    "size",
    "of the two thin matrices: percent of the weights, or their rank",
    Values::Bare(&["ratio=50", "ratio=25", "ratio=75", "ratio=90", "rank=32", "rank=64", "rank=128", "rank=256"]),
);
const ALIGN: Parameter =
    optional("align", "what stays is a multiple of this", Values::OneOf(&["32", "4", "8", "16", "64", "128", "256"]));

const DESCRIBED: &[Method] = &[
    plain("f32", Family::Dense, "Full precision, as models are trained."),
    plain("f16", Family::Dense, "Half precision: 11 significant bits, a small range."),
    plain("bf16", Family::Dense, "Half the bits, the range of full precision: what most models are published in."),
    plain("q8_0", Family::Integers, "8-bit integers, a scale for every 32 weights. Nearly lossless."),
    plain("q5_1", Family::Integers, "5-bit integers, scale and minimum for every 32 weights."),
    plain("q5_0", Family::Integers, "5-bit integers, a scale for every 32 weights."),
    plain("q4_1", Family::Integers, "4-bit integers, scale and minimum for every 32 weights."),
    plain("q4_0", Family::Integers, "4-bit integers, a scale for every 32 weights."),
    plain("q6_k", Family::Superblocks, "6-bit integers; blocks of 16 share 8-bit scales."),
    plain("q5_k", Family::Superblocks, "5-bit integers; blocks of 32 share 6-bit scales and minima."),
    plain("q4_k", Family::Superblocks, "4-bit integers; blocks of 32 share 6-bit scales and minima. The usual choice."),
    plain("q3_k", Family::Superblocks, "3-bit integers; blocks of 16 share 6-bit scales."),
    plain("q2_k", Family::Superblocks, "2-bit integers; blocks of 16 share 4-bit scales and minima."),
    plain("iq4_nl", Family::Codebooks, "4-bit indices into unevenly spaced values, a scale for every 32 weights."),
    plain("iq4_xs", Family::Codebooks, "4-bit indices into unevenly spaced values, 6-bit scales."),
    plain("mxfp4", Family::Codebooks, "4-bit floats, a power of two for every 32 weights (OCP MX)."),
    plain("tq1_0", Family::Ternary, "Minus one, zero or one: five weights in a byte."),
    plain("tq2_0", Family::Ternary, "Minus one, zero or one: two bits each."),
    Method {
        name: "nf4",
        family: Family::Codebooks,
        what: "16 values placed where a normal distribution has its weights (QLoRA).",
        parameters: &[BLOCK, DOUBLE],
    },
    Method {
        name: "fp4",
        family: Family::Codebooks,
        what: "4-bit floating point with a scale for each block.",
        parameters: &[BLOCK, DOUBLE],
    },
    Method {
        name: "uniform",
        family: Family::Integers,
        what: "Integers of any width with a least-squares scale for each group.",
        parameters: &[
            required("bits", "bits of a weight", Values::OneOf(&["4", "2", "3", "5", "6", "8"])),
            optional("group", "weights that share a scale", Values::OneOf(&["64", "16", "32", "128", "256"])),
            optional("zero", "a zero point for each group", Values::Switch(false)),
            optional("gptq", "errors are made up for by later columns (GPTQ; calibrates)", Values::Switch(false)),
        ],
    },
    plain("dfloat11", Family::Lossless, "bf16 with Huffman-coded exponents (DFloat11): nothing lost."),
    Method {
        name: "spqr",
        family: Family::Integers,
        what: "Integers of 3 or 4 bits with 3-bit scales; the weights that would lose most stay in 16 bits (SpQR).",
        parameters: &[
            optional("bits", "bits of a weight", Values::OneOf(&["3", "4"])),
            optional("group", "weights that share a scale", Values::OneOf(&["16", "32"])),
            optional("outliers", "percent that stay in 16 bits", Values::OneOf(&["2.5", "0", "0.5", "1", "5", "10"])),
        ],
    },
    Method {
        name: "sparse",
        family: Family::Sparse,
        what: "Some of the weights stay, the others are zero and take no room.",
        parameters: &[
            required(
                "pattern",
                "weights that may stay: so many of so many, or wherever they are, less this share",
                Values::Bare(&["2:4", "1:4", "4:8", "8:16", "50%", "30%", "60%", "70%", "80%", "90%"]),
            ),
            optional(
                "method",
                "which stay: the largest, or what matters on a text (calibrates)",
                Values::OneOf(&["magnitude", "wanda", "sparsegpt"]),
            ),
            VALUES,
        ],
    },
    Method {
        name: "svd",
        family: Family::LowRank,
        what: "Two thin matrices instead of a large one: its largest singular values.",
        parameters: &[SIZE, FACTORS],
    },
    Method {
        name: "lord",
        family: Family::LowRank,
        what: "Two thin matrices instead of a large one, fitted to what the layers put out (LoRD).",
        parameters: &[SIZE, FACTORS],
    },
    Method {
        name: "sparse24",
        family: Family::Sparse,
        what: "Of every four weights the two largest stay.",
        parameters: &[VALUES],
    },
    Method {
        name: "bitmap",
        family: Family::Sparse,
        what: "The largest weights of each row stay; a bitmap says where they were.",
        parameters: &[
            optional(
                "keep",
                "percent of the weights that stay",
                Values::OneOf(&["50", "10", "20", "30", "40", "60", "70", "80", "90"]),
            ),
            VALUES,
        ],
    },
];

/// Combinations worth trying; those whose parts are not registered are left out.
const COMBINED: &[Method] = &[
    plain("sparse:2:4+q4_k", Family::Sparse, "Of every four weights two stay, as 4-bit integers."),
    plain("sparse:50%+q4_k", Family::Sparse, "Half of the weights stay, wherever they are, as 4-bit integers."),
    plain("prune:ffn=25+q4_k", Family::Sparse, "A quarter of the MLP's channels goes; the rest as 4-bit integers."),
    plain("q3_k+eora:rank=32", Family::LowRank, "3-bit integers and a thin correction, fitted to what the layers see."),
    plain(
        "entropy:bf16",
        Family::Lossless,
        "bf16 with its exponents coded by how often they occur: a third less, nothing lost.",
    ),
    plain("entropy:uniform:bits=4", Family::Lossless, "4-bit integers, coded by how often they occur."),
];

const DOUBLE: Parameter = optional("double", "block scales in 8 bits themselves", Values::Switch(true));

/// What can come before any codec.
const STAGES: &[Method] = &[
    Method {
        name: "prune",
        family: Family::Other,
        what: "Whole heads and channels go, those that are worth least.",
        parameters: &[
            required(
                "ffn",
                "percent of the MLP's channels that go",
                Values::OneOf(&["25", "0", "10", "20", "30", "40", "50"]),
            ),
            optional("heads", "percent of the heads that go", Values::OneOf(&["0", "10", "20", "30", "40", "50"])),
            optional(
                "by",
                "what is worth least: small weights, or little effect on a text (calibrates)",
                Values::OneOf(&["magnitude", "activation"]),
            ),
            ALIGN,
        ],
    },
    Method {
        name: "modegpt",
        family: Family::Other,
        what: "Each layer's modules are decomposed so that their outputs on a text change little (MoDeGPT; calibrates).",
        parameters: &[
            required(
                "ratio",
                "percent of the dimensions that go",
                Values::OneOf(&["25", "10", "15", "20", "30", "40", "50"]),
            ),
            optional("mlp", "decompose the MLP", Values::Switch(true)),
            optional("qk", "decompose queries and keys", Values::Switch(true)),
            optional("vo", "decompose values and the output", Values::Switch(true)),
            ALIGN,
        ],
    },
];

/// What can be put around a codec.
const WRAPPERS: &[Method] =
    &[plain("entropy", Family::Lossless, "Frequent values get short codes: smaller, and nothing more is lost.")];

/// What can be put on top of a codec.
const ADDITIONS: &[Method] = &[
    Method {
        name: "eora",
        family: Family::LowRank,
        what: "Two thin matrices make up for what the codec loses, weighed by what the layers see (EoRA; calibrates).",
        parameters: &[RANK, FACTORS],
    },
    Method {
        name: "svd",
        family: Family::LowRank,
        what: "Two thin matrices make up for what the codec loses: the largest singular values of its error.",
        parameters: &[RANK, FACTORS],
    },
];

/// Bits of a weight in rows of `cols`: what the layout takes, and where planes are of variable length about the most.
///
/// # Errors
/// A spelling that [`parse`] refuses.
pub fn bits_per_weight(spelling: &str, cols: usize) -> Result<f64, super::CodecError> {
    let cols = cols.max(RUN);
    Ok(8.0 * parse(spelling)?.planned_bytes(RUN, cols) as f64 / (RUN * cols) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_of_the_form_is_a_codec_that_encodes() {
        let methods = methods();
        assert!(methods.len() > 20);
        assert_eq!(methods.iter().map(|m| m.name).collect::<std::collections::HashSet<_>>().len(), methods.len());
        for method in methods {
            let defaults: Vec<String> = method.parameters.iter().map(|p| p.default().to_owned()).collect();
            for (i, parameter) in method.parameters.iter().enumerate() {
                let values = match parameter.values {
                    Values::OneOf(values) | Values::Bare(values) => values,
                    Values::Switch(_) => &["on", "off"],
                };
                for value in values {
                    let mut chosen = defaults.clone();
                    chosen[i] = (*value).to_owned();
                    let spelling = method.spelling(&chosen);
                    let codec = parse(&spelling).unwrap_or_else(|error| panic!("{spelling}: {error}"));
                    assert!(codec.encodes());
                    assert_eq!(method.values(&spelling), Some(chosen), "{spelling}");
                    // What the form calls a default is one. (A codec may go by a newer name, which the form cannot take apart.)
                    if let Some(canonical) = method.values(&codec.name()) {
                        assert_eq!(canonical[i], *value, "{spelling}");
                    }
                }
            }
        }
    }

    #[test]
    fn spellings_are_short_and_read_back() {
        let find = |name: &str| methods().into_iter().find(|method| method.name == name).unwrap();
        assert_eq!(find("q4_k").spelling(&[]), "q4_k");
        assert_eq!(find("uniform").spelling(&["3".into(), "64".into(), "on".into()]), "uniform:bits=3,zero");
        assert_eq!(find("nf4").spelling(&["64".into(), "off".into()]), "nf4:double=off");
        assert_eq!(find("uniform").values("uniform:bits=3").unwrap(), ["3", "64", "off", "off"]);
        assert_eq!(find("nf4").values("uniform:bits=3"), None);
        assert_eq!(find("q4_k").values("q4_k+eora:rank=64"), None);
        assert_eq!(find("sparse").values("sparse:50%,method=wanda").unwrap(), ["50%", "wanda", "bf16"]);
        assert_eq!(find("sparse").values("sparse:50%,block=16"), None);
        assert_eq!(
            find("spqr").values("spqr:published"),
            None,
            "what is not on the form is not lost on the way through it"
        );
        assert_eq!(find("sparse").values("sparse:37%,method=wanda").unwrap(), ["37%", "wanda", "bf16"]);
        assert_eq!(find("svd").spelling(&["rank=64".into(), "q8_0".into()]), "svd:rank=64,factors=q8_0");
    }

    #[test]
    fn bits_follow_from_the_layout() {
        assert_eq!(bits_per_weight("q4_k", 256).unwrap(), 4.5);
        assert_eq!(bits_per_weight("bf16", 64).unwrap(), 16.0);
        assert!(bits_per_weight("q9_k", 64).is_err());
    }
}
