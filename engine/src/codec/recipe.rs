//! Recipes: which codec packs which tensor.
//!
//! A recipe is one codec's spelling (`q4_k`), or a TOML file:
//!
//! ```toml
//! default = "q4_k"                      # tensors that no entry matches
//!
//! [[tensor]]                            # the first entry that matches a name decides
//! match = ["blk.*.attn_v.weight", "model.layers.*.self_attn.v_proj.weight"]
//! codec = "q6_k"
//!
//! [[tensor]]
//! match = "blk.[0-3].*"
//! codec = "uniform:bits=3,group=64"
//! ```
//!
//! `stage = "prune:ffn=25"` is what changes the model's shapes first; in a spelling it stands in front: `prune:ffn=25+q4_k`.
//!
//! In patterns `*` stands for any run of characters, dots included, `?` for one, `[0-3x]` for one of a set.

use serde::Deserialize;
use toml::Spanned;

use super::spec::stage;
use super::{Calibrates, CodecError, CodecRef, Shrink, parse};

/// Which codec packs which tensor.
#[derive(Debug, Clone)]
pub struct Recipe {
    name: String,
    shrink: Option<Shrink>,
    default: CodecRef,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    pattern: String,
    codec: CodecRef,
}

/// The codec of one tensor, and how it came to it.
#[derive(Debug, Clone)]
pub struct Choice {
    pub codec: CodecRef,
    /// The codec the recipe asks for, if rows of this length cannot be cut into its blocks.
    pub fallback_from: Option<String>,
    /// The pattern that matched; `None` for the default.
    pub pattern: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    stage: Option<Spanned<String>>,
    default: Spanned<String>,
    #[serde(default)]
    tensor: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    r#match: Patterns,
    codec: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a pattern or a list of patterns")]
enum Patterns {
    One(String),
    Many(Vec<String>),
}

impl Recipe {
    /// Reads a codec's spelling: every tensor gets it. A stage may stand in front; alone it means f16.
    ///
    /// # Errors
    /// A spelling that [`parse`] refuses, or a codec that can only be read.
    pub fn parse(spelling: &str) -> Result<Self, CodecError> {
        let (shrink, spelling) = stage(spelling)?;
        let default = encodable(&spelling)?;
        let name = match &shrink {
            Some(shrink) => format!("{}+{}", shrink.name(), default.name()),
            None => default.name(),
        };
        Ok(Self { name, shrink, default, rules: Vec::new() })
    }

    /// Reads the text of a TOML file; `name` is the file's, for reports and errors.
    ///
    /// # Errors
    /// Text that is no TOML, unknown or missing keys, codecs as for [`Recipe::parse`], patterns with an open bracket. The error
    /// names the line and the pattern.
    pub fn from_toml(name: &str, text: &str) -> Result<Self, CodecError> {
        let line = |at: usize| 1 + text.as_bytes()[..at.min(text.len())].iter().filter(|&&byte| byte == b'\n').count();
        let file: File = toml::from_str(text).map_err(|error| CodecError::Recipe {
            recipe: name.into(),
            line: error.span().map_or(1, |span| line(span.start)),
            pattern: None,
            message: error.message().into(),
        })?;
        let codec = |spelling: &Spanned<String>, pattern: Option<&str>| {
            encodable(spelling.get_ref()).map_err(|error| CodecError::Recipe {
                recipe: name.into(),
                line: line(spelling.span().start),
                pattern: pattern.map(Into::into),
                message: error.to_string(),
            })
        };
        let mut rules = Vec::new();
        for entry in &file.tensor {
            let patterns = match &entry.r#match {
                Patterns::One(pattern) => std::slice::from_ref(pattern),
                Patterns::Many(patterns) => patterns,
            };
            let codec = codec(&entry.codec, patterns.first().map(String::as_str))?;
            for pattern in patterns {
                if !well_formed(pattern) {
                    return Err(CodecError::Recipe {
                        recipe: name.into(),
                        line: line(entry.codec.span().start),
                        pattern: Some(pattern.clone()),
                        message: "the pattern has a `[` without its `]`".into(),
                    });
                }
                rules.push(Rule { pattern: pattern.clone(), codec: codec.clone() });
            }
        }
        let failed = |line, message: String| CodecError::Recipe { recipe: name.into(), line, pattern: None, message };
        let shrink = match &file.stage {
            None => None,
            Some(spelling) => match stage(spelling.get_ref()) {
                Ok((Some(shrink), _)) if !spelling.get_ref().contains('+') => Some(shrink),
                Ok(_) => {
                    let message = format!("`{}` is no stage: one of prune:…, modegpt:…", spelling.get_ref());
                    return Err(failed(line(spelling.span().start), message));
                }
                Err(error) => return Err(failed(line(spelling.span().start), error.to_string())),
            },
        };
        Ok(Self { name: name.into(), shrink, default: codec(&file.default, None)?, rules })
    }

    /// What is done to the model's shapes before its matrices are packed.
    pub fn shrink(&self) -> Option<&Shrink> {
        self.shrink.as_ref()
    }

    /// The codec's canonical spelling, or the file's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How much the codec, or stage, that calibrates most does.
    pub fn calibrates(&self) -> Calibrates {
        let rules = self.rules.iter().map(|rule| rule.codec.calibrates());
        let stage = self.shrink.as_ref().map_or(Calibrates::No, Shrink::calibrates);
        rules.fold(self.default.calibrates().max(stage), Ord::max)
    }

    /// The codec for a tensor of `rows` x `cols` weights. Where `cols` is no multiple of its block, the codecs that
    /// llama.cpp falls back to are taken, for the groups of `uniform`, `nf4` and `fp4` half the length until it divides, at
    /// last f16. A codec whose parameters depend on the shape gets them here.
    pub fn choose(&self, tensor: &str, rows: usize, cols: usize) -> Choice {
        let rule = self.rules.iter().find(|rule| matches(rule.pattern.as_bytes(), tensor.as_bytes()));
        let wanted = rule.map_or(&self.default, |rule| &rule.codec);
        let mut codec = wanted.clone();
        while !cols.is_multiple_of(codec.block_len()) {
            codec = codec.fallback();
        }
        let mut fell_back = !cols.is_multiple_of(wanted.block_len());
        if let Some(fitting) = codec.for_shape(rows, cols) {
            // Another rank is what was asked for; no low rank at all is not.
            fell_back |= codec.is_low_rank() && !fitting.is_low_rank();
            codec = fitting;
        }
        Choice {
            codec,
            fallback_from: fell_back.then(|| wanted.name()),
            pattern: rule.map(|rule| rule.pattern.clone()),
        }
    }
}

impl Choice {
    /// The choice for a table of which rows are looked up, and which may be the output projection as well.
    #[must_use]
    pub fn for_table(mut self) -> Self {
        if let Some(codec) = self.codec.for_table() {
            self.codec = codec;
        }
        self
    }
}

/// The codec of a spelling, which must be able to encode.
fn encodable(spelling: &str) -> Result<CodecRef, CodecError> {
    let codec = parse(spelling)?;
    if codec.encodes() { Ok(codec) } else { Err(CodecError::ReadOnly { codec: codec.name() }) }
}

/// Whether every set has its end.
fn well_formed(pattern: &str) -> bool {
    let mut rest = pattern;
    while let Some(open) = rest.find('[') {
        match rest[open + 1..].find(']') {
            Some(close) => rest = &rest[open + 1 + close + 1..],
            None => return false,
        }
    }
    true
}

/// Whether a pattern matches a whole name. Remembers only the last `*`: a later one can take over all that an earlier one left.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, n));
            p += 1;
        } else if let Some(len) = matches_one(&pattern[p..], name[n]) {
            p += len;
            n += 1;
        } else if let Some((at, from)) = star {
            // Let the star take one more byte.
            star = Some((at, from + 1));
            (p, n) = (at + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// Length of the pattern's first element if it matches `byte`. A `[` without end, which recipes refuse, matches nothing.
fn matches_one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'[', rest @ ..] => {
            let close = rest.iter().position(|&b| b == b']')?;
            let mut set = &rest[..close];
            let mut found = false;
            while let [first, tail @ ..] = set {
                if let [b'-', last, tail @ ..] = tail {
                    found |= (first..=last).contains(&&byte);
                    set = tail;
                } else {
                    found |= *first == byte;
                    set = tail;
                }
            }
            found.then_some(close + 2)
        }
        [first, ..] => (*first == byte).then_some(1),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIXED: &str = r#"
default = "q4_k"

[[tensor]]
match = ["blk.*.attn_v.weight", "*.v_proj.weight"]
codec = "q6_k"

[[tensor]]
match = "blk.[0-3].*"
codec = "uniform:bits=3,group=64"
"#;

    fn chosen(recipe: &Recipe, tensor: &str, cols: usize) -> (String, Option<String>) {
        let choice = recipe.choose(tensor, 4, cols);
        (choice.codec.name(), choice.fallback_from)
    }

    #[test]
    fn first_match_decides() {
        let recipe = Recipe::from_toml("mixed.toml", MIXED).unwrap();
        assert_eq!(recipe.name(), "mixed.toml");
        assert_eq!(chosen(&recipe, "blk.1.attn_v.weight", 256).0, "q6_k");
        assert_eq!(chosen(&recipe, "model.layers.7.self_attn.v_proj.weight", 256).0, "q6_k");
        assert_eq!(chosen(&recipe, "blk.1.ffn_up.weight", 256).0, "uniform:bits=3,group=64");
        assert_eq!(chosen(&recipe, "blk.10.ffn_up.weight", 256).0, "q4_k");
        assert_eq!(recipe.choose("blk.2.x", 1, 256).pattern.as_deref(), Some("blk.[0-3].*"));
        assert_eq!(recipe.choose("output.weight", 1, 256).pattern, None);
    }

    #[test]
    fn rows_that_do_not_fit_fall_back() {
        let expected = [
            ("q4_k", 576, "q5_0"),
            ("q5_k", 576, "q5_1"),
            ("q6_k", 576, "q8_0"),
            ("q2_k", 576, "iq4_nl"),
            ("q3_k", 576, "iq4_nl"),
            ("tq1_0", 576, "q4_0"),
            ("tq2_0", 576, "q4_0"),
            ("q4_k", 100, "f16"),
            ("q8_0", 100, "f16"),
            ("mxfp4", 48, "f16"),
            ("uniform:bits=3,group=256", 576, "uniform:bits=3,group=64"),
            ("uniform:bits=3,group=128,zero", 96, "uniform:bits=3,group=32,zero"),
            ("uniform:bits=3,group=16", 48, "f16"),
            ("nf4:block=4096,double=off", 1536, "nf4:block=512,double=off"),
            ("fp4:block=64", 96, "fp4:block=32"),
            ("nf4", 100, "f16"),
        ];
        for (recipe, cols, codec) in expected {
            let recipe = Recipe::parse(recipe).unwrap();
            assert_eq!(chosen(&recipe, "w", cols), (codec.into(), Some(recipe.name().into())), "{cols} columns");
        }
        for recipe in ["q4_k", "uniform:bits=2", "nf4", "bf16"] {
            let recipe = Recipe::parse(recipe).unwrap();
            assert_eq!(chosen(&recipe, "w", 512), (recipe.name().into(), None));
        }
    }

    #[test]
    fn errors_name_line_and_pattern() {
        let message = |text: &str| Recipe::from_toml("r.toml", text).unwrap_err().to_string();
        assert!(message("default = 3").starts_with("r.toml:1: "));
        assert!(message("default = \"q4_k\"\ncolour = 1").starts_with("r.toml:2: unknown field `colour`"));
        assert!(message("[[tensor]]\nmatch = \"a\"\ncodec = \"q4_k\"").contains("missing field `default`"));
        let unknown = "default = \"q4_k\"\n\n[[tensor]]\nmatch = \"a.*\"\ncodec = \"q9\"";
        assert!(message(unknown).starts_with("r.toml:5: pattern `a.*`: unknown codec `q9`; valid codecs: "));
        let open = "default = \"q4_k\"\n[[tensor]]\nmatch = \"a[0-3\"\ncodec = \"q8_0\"";
        assert_eq!(message(open), "r.toml:4: pattern `a[0-3`: the pattern has a `[` without its `]`");
        assert!(message("default = \"nvfp4\"").starts_with("r.toml:1: nvfp4: this format can be read but not written"));
        assert!(Recipe::parse("q1_0").unwrap_err().to_string().starts_with("q1_0: this format can be read"));
    }

    #[test]
    fn patterns() {
        let matches = |pattern: &str, name: &str| matches(pattern.as_bytes(), name.as_bytes());
        assert!(matches("*", "") && matches("**", "abc") && matches("a*c", "abbc") && matches("*a*b*", "xaxxbx"));
        assert!(matches("a?c", "abc") && matches("[ab]x[0-9]", "bx7") && matches("x[a-cx]", "xx"));
        assert!(!matches("a*c", "abcd") && !matches("a?c", "ac") && !matches("[0-9]", "x") && !matches("", "a"));
        assert!(!matches("a[0", "a0"));
        // Many stars over a name that fails late stay fast.
        assert!(!matches(&"a*".repeat(40), &"a".repeat(39)) && !matches(&"*a".repeat(30), &"b".repeat(10_000)));
    }
}
