//! Spelling of codecs: `name[:option=value,option,…]`, and of what is put around them:
//!
//! - `method+codec`, `codec+method` – a method that works on top of another, from left to right: `sparse:2:4+q4_k`,
//!   `q4_k+eora:rank=64`;
//! - `stage+codec` – what changes the model before any codec packs it: `prune:ffn=25+q4_k` ([`super::Shrink`]);
//! - `method:codec` – a wrapper, which takes all that follows: `entropy:uniform:bits=4`.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::dense::Dense;
use super::ggml::{Block, Ggml};
use super::shrink::{STAGES, Shrink};
use super::{CodecError, CodecRef};
use crate::spelling::nearest;

/// Makes a codec from its options.
type Build = fn(Options) -> Result<CodecRef, CodecError>;

/// The registry: every codec's spelling and how it is built.
const CODECS: &[(&str, Build)] = &[
    ("f32", |options| options.none(Arc::new(Dense::F32))),
    ("f16", |options| options.none(Arc::new(Dense::F16))),
    ("bf16", |options| options.none(Arc::new(Dense::Bf16))),
    ("q4_0", ggml::<super::q4_0::Q4_0>),
    ("q4_1", ggml::<super::q4_1::Q4_1>),
    ("q5_0", ggml::<super::q5_0::Q5_0>),
    ("q5_1", ggml::<super::q5_1::Q5_1>),
    ("q8_0", ggml::<super::q8_0::Q8_0>),
    ("q2_k", ggml::<super::q2_k::Q2K>),
    ("q3_k", ggml::<super::q3_k::Q3K>),
    ("q4_k", ggml::<super::q4_k::Q4K>),
    ("q5_k", ggml::<super::q5_k::Q5K>),
    ("q6_k", ggml::<super::q6_k::Q6K>),
    ("iq4_nl", ggml::<super::iq4_nl::Iq4Nl>),
    ("iq4_xs", ggml::<super::iq4_xs::Iq4Xs>),
    ("tq1_0", ggml::<super::tq1_0::Tq1_0>),
    ("tq2_0", ggml::<super::tq2_0::Tq2_0>),
    ("mxfp4", ggml::<super::mxfp4::Mxfp4>),
    ("nvfp4", ggml::<super::nvfp4::Nvfp4>),
    ("q1_0", ggml::<super::q1_0::Q1_0>),
    ("q2_0", ggml::<super::q2_0::Q2_0>),
    ("uniform", super::uniform::build),
    ("nf4", |options| super::absmax::build(&super::nf4::NF4, options)),
    ("fp4", |options| super::absmax::build(&super::fp4::FP4, options)),
    ("sparse", super::sparse::build),
    ("sparse24", super::sparse24::build),
    ("bitmap", super::bitmap::build),
    ("svd", super::low_rank::svd),
    ("lord", super::low_rank::lord),
    ("dfloat11", |options| options.none(Arc::new(super::dfloat11::DFloat11))),
    ("spqr", super::spqr::build),
];

/// Puts a method on top of the codec to its left.
type Combine = fn(CodecRef, Options) -> Result<CodecRef, CodecError>;

/// What can stand behind a `+`. A codec that stands there instead says how the values of the codec to its left are stored, if that
/// one has any ([`Codec::with_values`](super::Codec::with_values)).
const ADDITIONS: &[(&str, Combine)] = &[("eora", super::low_rank::add_eora), ("svd", super::low_rank::add_svd)];

/// Puts a wrapper around a codec.
type Wrap = fn(CodecRef) -> Result<CodecRef, CodecError>;

/// Wrappers, which take all that stands behind their colon.
const WRAPPERS: &[(&str, Wrap)] = &[("entropy", super::entropy::wrap)];

/// Builds the codec of a block type, which has no options.
fn ggml<B: Block>(options: Options) -> Result<CodecRef, CodecError> {
    options.none(Arc::new(Ggml::<B>::new()))
}

/// The names [`parse`] knows, as messages and help texts list them.
pub fn valid_codecs() -> String {
    CODECS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// The names that recipes may have, by where they stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Codecs.
    pub codecs: Vec<&'static str>,
    /// Methods behind a `+`.
    pub additions: Vec<&'static str>,
    /// Methods that wrap a codec, before a `:`.
    pub wrappers: Vec<&'static str>,
    /// Methods that change the model before any codec.
    pub stages: Vec<&'static str>,
}

/// Everything that is registered: what the feature matrix (`docs/methods/features.toml`) must list.
pub fn names() -> Names {
    Names {
        codecs: CODECS.iter().map(|(name, _)| *name).collect(),
        additions: ADDITIONS.iter().map(|(name, _)| *name).collect(),
        wrappers: WRAPPERS.iter().map(|(name, _)| *name).collect(),
        stages: STAGES.iter().map(|(name, _)| *name).collect(),
    }
}

/// Reads a codec's spelling, e.g. `q4_k`, `uniform:bits=3,group=64` or `nf4:block=64`. Case does not matter.
///
/// # Errors
/// An unknown codec or option, or a value that is not allowed; the message lists what is.
pub fn parse(recipe: &str) -> Result<CodecRef, CodecError> {
    let recipe = recipe.trim().to_ascii_lowercase();
    let name = recipe.split([':', '+']).next().unwrap_or_default().trim();
    if let Some((_, wrap)) = WRAPPERS.iter().find(|(known, _)| *known == name) {
        let codec = parse(recipe.split_once(':').map_or("", |(_, wrapped)| wrapped))?;
        return codec.rewrap(wrap).unwrap_or_else(|| wrap(codec.clone()));
    }
    let mut segments = recipe.split('+');
    let mut codec = single(segments.next().unwrap_or_default())?;
    for segment in segments {
        let (name, options) = segment.split_once(':').unwrap_or((segment, ""));
        codec = match ADDITIONS.iter().find(|(known, _)| *known == name.trim()) {
            Some((known, combine)) => combine(codec, Options::read(known, options)?)?,
            None if STAGES.iter().any(|(known, _)| *known == name.trim()) => {
                return Err(CodecError::Combination {
                    left: codec.name(),
                    right: name.trim().into(),
                    why: "a stage changes the model before any codec: it comes first, and there is one at most".into(),
                });
            }
            None if let Some((known, _)) = WRAPPERS.iter().find(|(known, _)| *known == name.trim()) => {
                let why = format!("a wrapper comes first and takes what follows, as in `{known}:q4_k+eora:rank=64`");
                return Err(CodecError::Combination { left: codec.name(), right: (*known).into(), why });
            }
            None => {
                let values = single(segment)?;
                codec.with_values(&values)?
            }
        };
    }
    Ok(codec)
}

/// Splits a recipe's spelling into the stage before the codec, if there is one, and the codec's spelling: that of f16 where none is given.
///
/// # Errors
/// As [`parse`], for the stage.
pub(super) fn stage(recipe: &str) -> Result<(Option<Shrink>, String), CodecError> {
    let recipe = recipe.trim().to_ascii_lowercase();
    let (segment, rest) = recipe.split_once('+').unwrap_or((&recipe, "f16"));
    let (name, options) = segment.split_once(':').unwrap_or((segment, ""));
    let known = |name: &str| STAGES.iter().find(|(known, _)| *known == name.trim());
    match known(name) {
        Some((left, _)) if let Some((right, _)) = rest.split([':', '+']).next().and_then(known) => {
            let why = "there is one stage at most".to_owned();
            Err(CodecError::Combination { left: (*left).into(), right: (*right).into(), why })
        }
        Some((known, build)) => Ok((Some(build(Options::read(known, options)?)?), rest.to_owned())),
        None => Ok((None, recipe)),
    }
}

/// Reads one codec's spelling.
fn single(segment: &str) -> Result<CodecRef, CodecError> {
    let (name, options) = segment.split_once(':').unwrap_or((segment, ""));
    let name = name.trim();
    let known = || CODECS.iter().map(|(known, _)| *known);
    let stages = || STAGES.iter().map(|(known, _)| *known);
    let additions = || ADDITIONS.iter().map(|(known, _)| *known);
    match CODECS.iter().find(|(known, _)| *known == name) {
        Some((known, build)) => build(Options::read(known, options)?),
        None if additions().any(|known| known == name) => Err(CodecError::Combination {
            left: "nothing".into(),
            right: name.into(),
            why: format!("it adds to the codec before it, as in `q4_k+{name}:rank=64`"),
        }),
        None => Err(CodecError::UnknownCodec {
            name: name.into(),
            near: nearest(name, known().chain(additions()).chain(stages())),
            valid: valid_codecs(),
        }),
    }
}

/// The options of a spelling, taken one by one by the codec's builder.
#[derive(Debug)]
pub(super) struct Options {
    codec: &'static str,
    /// Names with their values; a bare name has none.
    given: Vec<(String, Option<String>)>,
}

impl Options {
    fn read(codec: &'static str, text: &str) -> Result<Self, CodecError> {
        let mut given: Vec<(String, Option<String>)> = Vec::new();
        for option in text.split(',').map(str::trim).filter(|option| !option.is_empty()) {
            let (name, value) = match option.split_once('=') {
                Some((name, value)) => (name.trim(), Some(value.trim().to_string())),
                None => (option, None),
            };
            if given.iter().any(|(known, _)| known == name) {
                return Err(CodecError::RepeatedOption { codec: codec.into(), option: name.into() });
            }
            given.push((name.into(), value));
        }
        Ok(Self { codec, given })
    }

    /// The codec, which must have been given no options.
    fn none(self, codec: CodecRef) -> Result<CodecRef, CodecError> {
        self.only(&[], "none")?;
        Ok(codec)
    }

    /// Checks that no other options than `names` were given; `valid` lists them for the message.
    pub(super) fn only(&self, names: &[&str], valid: &str) -> Result<(), CodecError> {
        match self.given.iter().find(|(given, _)| !names.contains(&given.as_str())) {
            None => Ok(()),
            Some((option, _)) => {
                Err(CodecError::UnknownOption { codec: self.codec.into(), option: option.clone(), valid: valid.into() })
            }
        }
    }

    /// Checks that no other options *with a value* than `names` were given.
    pub(super) fn only_named(&self, names: &[&str], valid: &str) -> Result<(), CodecError> {
        match self.given.iter().find(|(given, value)| value.is_some() && !names.contains(&given.as_str())) {
            None => Ok(()),
            Some((option, _)) => {
                Err(CodecError::UnknownOption { codec: self.codec.into(), option: option.clone(), valid: valid.into() })
            }
        }
    }

    /// What was given without a value.
    pub(super) fn bare(&self) -> impl Iterator<Item = &str> {
        self.given.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| name.as_str())
    }

    /// The value of an option that was given, `None` inside for one without a value.
    pub(super) fn get(&self, name: &str) -> Option<Option<&str>> {
        self.given.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_deref())
    }

    /// The codec's name, for messages.
    pub(super) fn codec(&self) -> String {
        self.codec.into()
    }

    /// Whether the option was given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// An option's value as it was given, if it was.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).map(Option::unwrap_or_default)
    }

    /// A multiple of `step` within `range`, if the option was given.
    pub(super) fn count(
        &self,
        name: &str,
        step: usize,
        range: RangeInclusive<usize>,
    ) -> Result<Option<usize>, CodecError> {
        let Some(value) = self.text(name) else { return Ok(None) };
        let number = value.parse().ok().filter(|n: &usize| range.contains(n) && n.is_multiple_of(step));
        match number {
            Some(number) => Ok(Some(number)),
            None => Err(CodecError::OptionValue {
                codec: self.codec(),
                option: name.into(),
                value: value.into(),
                valid: Self::counts(step, &range),
            }),
        }
    }

    /// [`Options::count`] of an option that must be given.
    pub(super) fn required_count(
        &self,
        name: &str,
        step: usize,
        range: RangeInclusive<usize>,
    ) -> Result<usize, CodecError> {
        let missing = || CodecError::MissingOption {
            codec: self.codec(),
            option: name.into(),
            valid: Self::counts(step, &range),
        };
        self.count(name, step, range.clone())?.ok_or_else(missing)
    }

    fn counts(step: usize, range: &RangeInclusive<usize>) -> String {
        let (start, end) = (range.start(), range.end());
        if step == 1 { format!("{start} to {end}") } else { format!("multiples of {step} from {start} to {end}") }
    }

    /// A number that must be one of `valid`.
    pub(super) fn number(&self, name: &str, valid: &[usize], default: Option<usize>) -> Result<usize, CodecError> {
        let (codec, option) = (self.codec.to_string(), name.to_string());
        let list = || valid.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        match (self.get(name), default) {
            (Some(Some(value)), _) => value
                .parse()
                .ok()
                .filter(|number| valid.contains(number))
                .ok_or_else(|| CodecError::OptionValue { codec, option, value: value.into(), valid: list() }),
            (None, Some(default)) => Ok(default),
            (Some(None) | None, _) => Err(CodecError::MissingOption { codec, option, valid: list() }),
        }
    }

    /// A whole number of percent in `range`, with or without the sign.
    pub(super) fn percent(
        &self,
        name: &str,
        range: RangeInclusive<u32>,
        default: Option<u32>,
    ) -> Result<u32, CodecError> {
        let (codec, option) = (self.codec.to_string(), name.to_string());
        let valid = || format!("{} to {} percent", range.start(), range.end());
        match (self.get(name), default) {
            (Some(Some(value)), _) => value
                .trim_end_matches('%')
                .trim_end()
                .parse()
                .ok()
                .filter(|number| range.contains(number))
                .ok_or_else(|| CodecError::OptionValue { codec, option, value: value.into(), valid: valid() }),
            (None, Some(default)) => Ok(default),
            (Some(None) | None, _) => Err(CodecError::MissingOption { codec, option, valid: valid() }),
        }
    }

    /// A number of at least `least`; `inf` is one.
    pub(super) fn decimal(&self, name: &str, least: f64, default: f64) -> Result<f64, CodecError> {
        let Some(value) = self.get(name) else { return Ok(default) };
        let value = value.unwrap_or_default();
        value.parse().ok().filter(|number| *number >= least).ok_or_else(|| CodecError::OptionValue {
            codec: self.codec.into(),
            option: name.into(),
            value: value.into(),
            valid: format!("numbers from {least}, or inf"),
        })
    }

    /// One of some words; `None` where the option is not given.
    pub(super) fn word(&self, name: &str, valid: &[&'static str]) -> Result<Option<&'static str>, CodecError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let value = value.unwrap_or_default();
        valid.iter().find(|word| **word == value).copied().map(Some).ok_or_else(|| CodecError::OptionValue {
            codec: self.codec.into(),
            option: name.into(),
            value: value.into(),
            valid: valid.join(", "),
        })
    }

    /// A decimal number from `least` to `most`, if it is given.
    pub(super) fn decimal_between(&self, name: &str, least: f32, most: f32) -> Result<Option<f32>, CodecError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = value.and_then(|value| value.parse().ok()).filter(|number| (least..=most).contains(number));
        number.map(Some).ok_or_else(|| CodecError::OptionValue {
            codec: self.codec.into(),
            option: name.into(),
            value: value.unwrap_or_default().into(),
            valid: format!("{least} to {most}"),
        })
    }

    /// Refuses an option for the company it is in.
    pub(super) fn refuse(&self, name: &str, valid: &str) -> CodecError {
        let value = self.get(name).flatten().unwrap_or_default().into();
        CodecError::OptionValue { codec: self.codec.into(), option: name.into(), value, valid: valid.into() }
    }

    /// The number format of values that are kept: `values=bf16` (the default) or `values=f16`.
    pub(super) fn values(&self) -> Result<Dense, CodecError> {
        match self.get("values") {
            None | Some(Some("bf16")) => Ok(Dense::Bf16),
            Some(Some("f16")) => Ok(Dense::F16),
            Some(value) => Err(CodecError::OptionValue {
                codec: self.codec.into(),
                option: "values".into(),
                value: value.unwrap_or_default().into(),
                valid: "bf16, f16".into(),
            }),
        }
    }

    /// A switch: `name`, `name=on` or `name=off`.
    pub(super) fn switch(&self, name: &str, default: bool) -> Result<bool, CodecError> {
        match self.get(name) {
            None => Ok(default),
            Some(None | Some("on")) => Ok(true),
            Some(Some("off")) => Ok(false),
            Some(Some(value)) => Err(CodecError::OptionValue {
                codec: self.codec.into(),
                option: name.into(),
                value: value.into(),
                valid: "on, off".into(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        let spellings = [
            ("Q4_K", "q4_k"),
            (" bf16 ", "bf16"),
            ("uniform:bits=3", "uniform:bits=3,group=64"),
            ("uniform: zero, group=16, bits=8", "uniform:bits=8,group=16,zero"),
            ("uniform:bits=2,group=256,zero=off", "uniform:bits=2,group=256"),
            ("uniform:gptq,zero,bits=3", "uniform:bits=3,group=64,zero,gptq"),
            ("nf4", "nf4:block=64"),
            ("nf4:block=64,double", "nf4:block=64"),
            ("fp4:double=off,block=4096", "fp4:block=4096,double=off"),
            ("bitmap:values=bf16,keep=30", "bitmap:keep=30"),
            ("Q4_K + EoRA: rank=64", "q4_k+eora:rank=64"),
            ("uniform:bits=3+svd:factors=q8_0,rank=32", "uniform:bits=3,group=64+svd:rank=32,factors=q8_0"),
            ("lord:ratio=60", "lord:ratio=60"),
            ("svd:rank=128,factors=bf16", "svd:rank=128"),
            ("spqr", "spqr:bits=3"),
            ("spqr:group=16,outliers=2.5", "spqr:bits=3"),
            ("spqr:outliers=2.5,bits=4,group=32", "spqr:bits=4,group=32,outliers=2.5"),
            ("spqr:threshold=0.2,bits=3", "spqr:bits=3,threshold=0.2"),
            ("spqr:published", "spqr:bits=3,published"),
            ("Entropy:uniform:bits=4", "entropy:uniform:bits=4,group=64"),
            (" entropy: bf16", "entropy:bf16"),
        ];
        for (given, canonical) in spellings {
            let codec = parse(given).unwrap();
            assert_eq!(codec.name(), canonical);
            assert_eq!(parse(&codec.name()).unwrap().name(), canonical);
        }
        // The names that stand for themselves: `sparse24` is an old one.
        for (name, _) in
            CODECS.iter().filter(|(name, _)| !["uniform", "sparse", "sparse24", "svd", "lord"].contains(name))
        {
            assert_eq!(parse(name).unwrap().name().split(':').next(), Some(*name));
        }
    }

    #[test]
    fn errors_say_what_is_valid() {
        let message = |recipe: &str| parse(recipe).unwrap_err().to_string();
        assert!(message("q9_k").starts_with("unknown codec `q9_k`; valid codecs: f32, f16, bf16, q4_0,"));
        assert!(message("").starts_with("unknown codec ``"));
        assert!(message("q4k").starts_with("unknown codec `q4k` (did you mean `q4_k`?); valid codecs: f32,"));
        assert_eq!(message("q4_k:bits=3"), "q4_k: unknown option `bits`; valid options: none");
        assert_eq!(message("uniform"), "uniform: option `bits` is missing; valid: 2, 3, 4, 5, 6, 8");
        assert_eq!(message("uniform:bits"), "uniform: option `bits` is missing; valid: 2, 3, 4, 5, 6, 8");
        assert_eq!(message("uniform:bits=7"), "uniform: `7` is no valid bits; valid: 2, 3, 4, 5, 6, 8");
        assert_eq!(message("uniform:bits=4,group=48"), "uniform: `48` is no valid group; valid: 16, 32, 64, 128, 256");
        assert_eq!(message("uniform:bits=4,bits=4"), "uniform: option `bits` is given twice");
        assert_eq!(message("nf4:double=maybe"), "nf4: `maybe` is no valid double; valid: on, off");
        assert_eq!(message("q4_k+eora"), "eora: option `rank` is missing; valid: multiples of 8 from 8 to 4096");
        assert!(message("lord:rank=12").ends_with("`12` is no valid rank; valid: multiples of 8 from 8 to 4096"));
        assert!(message("lord:rank=16,ratio=50").contains("rank beside ratio"));
        assert!(message("q4_k+svd:rank=40,factors=q8_0").ends_with("valid: multiples of 32 from 32 to 4096"));
        assert!(message("q4_k+eora:rank=8,factors=q6_k").contains("bf16, f16, q8_0, q4_0"));
        assert!(message("q4_k+eora:rank=8+svd:rank=8").contains("it has a low-rank part already"));
        assert_eq!(message("spqr:outliers=30"), "spqr: `30` is no valid outliers; valid: 0 to 20");
        assert_eq!(message("spqr:threshold=nan"), "spqr: `nan` is no valid threshold; valid: 0.001 to 100");
        assert_eq!(
            message("spqr:outliers=1,threshold=0.2"),
            "spqr: `1` is no valid outliers; valid: none beside threshold, which says the same in another way"
        );
        assert_eq!(message("nf4:group=64"), "nf4: unknown option `group`; valid options: block, double");
    }
}
