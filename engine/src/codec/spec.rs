//! Spelling of codecs: `name[:option=value,option,…]`.

use std::sync::Arc;

use super::dense::Dense;
use super::ggml::{Block, Ggml};
use super::{CodecError, CodecRef};

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
];

/// Builds the codec of a block type, which has no options.
fn ggml<B: Block>(options: Options) -> Result<CodecRef, CodecError> {
    options.none(Arc::new(Ggml::<B>::new()))
}

/// The names [`parse`] knows, as messages and help texts list them.
pub fn valid_codecs() -> String {
    CODECS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// Reads a codec's spelling, e.g. `q4_k`, `uniform:bits=3,group=64` or `nf4:block=64`. Case does not matter.
///
/// # Errors
/// An unknown codec or option, or a value that is not allowed; the message lists what is.
pub fn parse(recipe: &str) -> Result<CodecRef, CodecError> {
    let recipe = recipe.trim().to_ascii_lowercase();
    let (name, options) = recipe.split_once(':').unwrap_or((&recipe, ""));
    match CODECS.iter().find(|(known, _)| *known == name.trim()) {
        Some((known, build)) => build(Options::read(known, options)?),
        None => Err(CodecError::UnknownCodec { name: name.trim().into(), valid: valid_codecs() }),
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
        self.finish("none", codec)
    }

    /// The codec, if no option is left that nobody took. `valid` lists the codec's options for the message.
    fn finish(self, valid: &str, codec: CodecRef) -> Result<CodecRef, CodecError> {
        match self.given.into_iter().next() {
            None => Ok(codec),
            Some((option, _)) => {
                Err(CodecError::UnknownOption { codec: self.codec.into(), option, valid: valid.into() })
            }
        }
    }
}
