//! Stages of a recipe that change the model's shapes before any codec packs what is left: `prune:ffn=25+q4_k`, `modegpt:ratio=25+q4_k`.
//!
//! Here is only how they are spelled; what they do is in [`crate::model::shrink`].

use std::fmt::Write as _;

use super::spec::Options;
use super::{Calibrates, CodecError};

/// Most percent that can be taken away.
const MOST: u32 = 90;

/// A stage.
#[derive(Clone, Debug, PartialEq)]
pub enum Shrink {
    /// Takes whole heads and channels away.
    Prune(Prune),
    /// Decomposes the modules of a layer so that less is lost (MoDeGPT, arXiv 2408.09632).
    Modegpt(Modegpt),
}

/// What decides which heads and channels are worth least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Importance {
    /// The energy of all weights that would vanish.
    Magnitude,
    /// The energy of what they write to the residual stream on a text.
    Activation,
}

/// `prune:heads=P,ffn=P,by=magnitude|activation,align=N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prune {
    /// Percent of all layers' KV heads that go, with their query heads.
    pub heads: u32,
    /// Percent of every layer's MLP channels that go.
    pub ffn: u32,
    /// Which of them.
    pub by: Importance,
    /// Channels that stay are a multiple of this.
    pub align: u32,
}

/// `modegpt:ratio=P,epsilon=E,mlp=off,qk=off,vo=off,align=N`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Modegpt {
    /// Percent of the dimensions that go, on average over layers.
    pub ratio: u32,
    /// Temperature of the softmax that spreads the ratio over layers: the smaller, the more unevenly. Infinite: evenly.
    pub epsilon: f64,
    /// Whether the MLP is decomposed (Nyström).
    pub mlp: bool,
    /// Whether queries and keys are (CR).
    pub qk: bool,
    /// Whether values and the output projection are (SVD).
    pub vo: bool,
    /// Channels that stay are a multiple of this.
    pub align: u32,
}

/// Makes a stage from its options.
type Build = fn(Options) -> Result<Shrink, CodecError>;

/// The registry of stages.
pub(super) const STAGES: &[(&str, Build)] = &[("prune", prune), ("modegpt", modegpt)];

fn prune(options: Options) -> Result<Shrink, CodecError> {
    options.only(&["heads", "ffn", "by", "align"], "heads, ffn, by, align")?;
    let by = match options.word("by", &["magnitude", "activation"])? {
        Some("activation") => Importance::Activation,
        _ => Importance::Magnitude,
    };
    let percent = |name| options.percent(name, 0..=MOST, Some(0));
    let prune = Prune { heads: percent("heads")?, ffn: percent("ffn")?, by, align: align(&options)? };
    if prune.heads == 0 && prune.ffn == 0 {
        let (codec, option) = ("prune".to_owned(), "ffn".to_owned());
        return Err(CodecError::MissingOption { codec, option, valid: format!("1 to {MOST} percent, or heads=…") });
    }
    Ok(Shrink::Prune(prune))
}

fn modegpt(options: Options) -> Result<Shrink, CodecError> {
    options.only(&["ratio", "epsilon", "mlp", "qk", "vo", "align"], "ratio, epsilon, mlp, qk, vo, align")?;
    let ratio = options.percent("ratio", 1..=80, None)?;
    let epsilon = options.decimal("epsilon", 0.001, 0.1)?;
    let [mlp, qk, vo] = [options.switch("mlp", true)?, options.switch("qk", true)?, options.switch("vo", true)?];
    if !(mlp || qk || vo) {
        let why = "all three modules are off: nothing would be decomposed".into();
        return Err(CodecError::Combination { left: "mlp=off,qk=off".into(), right: "vo=off".into(), why });
    }
    Ok(Shrink::Modegpt(Modegpt { ratio, epsilon, mlp, qk, vo, align: align(&options)? }))
}

fn align(options: &Options) -> Result<u32, CodecError> {
    Ok(options.number("align", &[4, 8, 16, 32, 64, 128, 256], Some(32))? as u32)
}

impl Shrink {
    /// Canonical spelling.
    pub fn name(&self) -> String {
        let mut name = String::new();
        let align = match self {
            Self::Prune(Prune { heads, ffn, by, align }) => {
                name.push_str("prune:");
                let mut parts = Vec::new();
                parts.extend((*heads > 0).then(|| format!("heads={heads}")));
                parts.extend((*ffn > 0).then(|| format!("ffn={ffn}")));
                parts.extend((*by == Importance::Activation).then(|| "by=activation".to_owned()));
                name.push_str(&parts.join(","));
                align
            }
            Self::Modegpt(Modegpt { ratio, epsilon, mlp, qk, vo, align }) => {
                let _ = write!(name, "modegpt:ratio={ratio}"); // a String takes all
                if *epsilon != 0.1 {
                    let _ = write!(name, ",epsilon={epsilon}");
                }
                for (module, on) in [("mlp", mlp), ("qk", qk), ("vo", vo)] {
                    if !on {
                        let _ = write!(name, ",{module}=off");
                    }
                }
                align
            }
        };
        if *align != 32 {
            let _ = write!(name, ",align={align}");
        }
        name
    }

    /// Whether it needs to know what activations look like on a text.
    pub fn calibrates(&self) -> Calibrates {
        match self {
            Self::Prune(Prune { by: Importance::Magnitude, .. }) => Calibrates::No,
            _ => Calibrates::Always,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Recipe;

    #[test]
    fn stages_round_trip_and_stand_before_the_codec() {
        for (given, canonical) in [
            ("prune:ffn=25%", "prune:ffn=25+f16"),
            ("Prune: heads = 10 , ffn=30% + q4_k", "prune:heads=10,ffn=30+q4_k"),
            ("prune:heads=30,by=activation,align=256+nf4", "prune:heads=30,by=activation,align=256+nf4:block=64"),
            ("modegpt:ratio=25%+q8_0", "modegpt:ratio=25+q8_0"),
            ("modegpt:ratio=30,epsilon=0.5,qk=off,align=64", "modegpt:ratio=30,epsilon=0.5,qk=off,align=64+f16"),
            ("modegpt:ratio=30,epsilon=inf+bf16", "modegpt:ratio=30,epsilon=inf+bf16"),
            ("q4_k", "q4_k"),
        ] {
            let recipe = Recipe::parse(given).unwrap();
            assert_eq!(recipe.name(), canonical);
            assert_eq!(Recipe::parse(recipe.name()).unwrap().shrink(), recipe.shrink());
        }
        let toml = "stage = \"prune:ffn=25\"\ndefault = \"q4_k\"";
        let recipe = Recipe::from_toml("r.toml", toml).unwrap();
        assert_eq!(recipe.shrink().map(super::Shrink::name).as_deref(), Some("prune:ffn=25"));
        assert_eq!(recipe.choose("w", 1, 256).codec.name(), "q4_k");
    }

    #[test]
    fn impossible_stages_say_why() {
        for (given, says) in [
            ("prune", "prune: option `ffn` is missing"),
            ("prune:ffn=0+q4_k", "option `ffn` is missing"),
            ("prune:ffn=95", "prune: `95` is no valid ffn; valid: 0 to 90 percent"),
            ("prune:ffn=2.5", "`2.5` is no valid ffn"),
            ("prune:ffn=20,by=luck", "`luck` is no valid by; valid: magnitude, activation"),
            ("prune:rows=20", "unknown option `rows`; valid options: heads, ffn, by, align"),
            ("modegpt+q4_k", "modegpt: option `ratio` is missing"),
            ("modegpt:ratio=25,mlp=off,qk=off,vo=off", "nothing would be decomposed"),
            ("modegpt:ratio=25,epsilon=0", "`0` is no valid epsilon"),
            ("modegpt:ratio=25,epsilon=nan", "`nan` is no valid epsilon"),
            ("q4_k+prune:ffn=25", "`q4_k` and `prune` cannot be combined"),
            ("prune:ffn=20+modegpt:ratio=10+q4_k", "cannot be combined"),
            ("prun:ffn=20", "did you mean `prune`?"),
        ] {
            let error = Recipe::parse(given).unwrap_err().to_string();
            assert!(error.contains(says), "{given}: {error}");
        }
        let error =
            Recipe::from_toml("r.toml", "default = \"q4_k\"\nstage = \"prune:ffn=99\"").unwrap_err().to_string();
        assert!(error.starts_with("r.toml:2: prune: `99`"), "{error}");
    }
}
