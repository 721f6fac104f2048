//! The WGSL preprocessor: imports, options, conditional sections and unrolled loops.
//!
//! Shared by the build script (which composes and validates every permutation) and by the library (which composes the
//! one that is asked for), so both see the same text. Directives are comments (`//:`), so that a kernel file stays
//! readable for editors:
//!
//! ```wgsl
//! //:import shared/oct                  another module of wgsl/, once
//! //:import codec                       the module that option CODEC names, from wgsl/codec/
//! //:option CODEC = codec               every codec module, each with that module's own options
//! //:option LANES = 1 8 32              the values that may be asked for; the first is the default
//! //:require f16 if F16                 the device feature that these options need
//! //:skip LANES == 1 && SUBGROUP        combinations that are never asked for; an option the codec does not have is 0
//! //:if SUBGROUP ... //:elif LANES > 8 ... //:else ... //:endif
//! //:for I in 0..HEAD_DIM/4 ... //:end  the text, once for every I
//! let x = acc#{I}[#{I % 4}];            the value of an integer expression
//! ```
//!
//! WGSL's own `override` stays the tool for switches that change no declaration: it needs no permutation.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The value of an option: an integer (a switch is 0 or 1), or a name (of a codec module).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Value {
    Int(i64),
    Name(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Int(i) => write!(f, "{i}"),
            Value::Name(n) => f.write_str(n),
        }
    }
}

impl From<u32> for Value {
    fn from(v: u32) -> Self {
        Value::Int(v.into())
    }
}
impl From<i32> for Value {
    fn from(v: i32) -> Self {
        Value::Int(v.into())
    }
}
impl From<usize> for Value {
    fn from(v: usize) -> Self {
        Value::Int(v as i64)
    }
}
impl From<bool> for Value {
    fn from(v: bool) -> Self {
        Value::Int(v.into())
    }
}
impl From<&str> for Value {
    fn from(v: &str) -> Self {
        Value::Name(v.to_owned())
    }
}

/// Options of one permutation, by name.
pub type Options = BTreeMap<String, Value>;

/// What went wrong, and in which line of which module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComposeError {
    pub module: String,
    pub line: usize,
    pub message: String,
}

impl fmt::Display for ComposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.wgsl:{}: {}", self.module, self.line, self.message)
    }
}

impl std::error::Error for ComposeError {}

/// Finds the text of a module ("linear/matvec") under `wgsl/`.
pub trait Sources {
    fn text(&self, module: &str) -> Option<&str>;
    /// Names of all modules under `codec/`, without the folder.
    fn codecs(&self) -> Vec<String>;
}

/// A composed shader: its text, and for every line of it the module and line it came from.
#[derive(Clone, Debug)]
pub struct Composition {
    pub source: String,
    pub origins: Vec<(String, usize)>,
    pub f16: bool,
    pub subgroup: bool,
}

/// One `//:option` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionDecl {
    pub name: String,
    /// `None` for `= codec`: every codec module.
    pub values: Option<Vec<Value>>,
}

/// What the head of a kernel says about its permutations.
#[derive(Clone, Debug, Default)]
pub struct Declarations {
    pub options: Vec<OptionDecl>,
    /// `//:skip` conditions with their place.
    pub skips: Vec<(String, String, usize)>,
    /// `//:require FEATURE if CONDITION`.
    requires: Vec<(String, String, String, usize)>,
}

fn directive(line: &str) -> Option<(&str, &str)> {
    let rest = line.trim_start().strip_prefix("//:")?.trim();
    let (word, args) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    Some((word, args.trim()))
}

fn err(module: &str, line: usize, message: impl Into<String>) -> ComposeError {
    ComposeError { module: module.to_owned(), line, message: message.into() }
}

/// Reads the options, skips and requirements of a kernel and of everything it imports. `codec` is the codec module that
/// stands for `//:import codec`, if one is chosen.
pub fn declarations(sources: &dyn Sources, kernel: &str, codec: Option<&str>) -> Result<Declarations, ComposeError> {
    let mut found = Declarations::default();
    let mut seen = BTreeSet::new();
    declare(sources, kernel, codec, &mut seen, &mut found)?;
    Ok(found)
}

fn declare(
    sources: &dyn Sources,
    module: &str,
    codec: Option<&str>,
    seen: &mut BTreeSet<String>,
    found: &mut Declarations,
) -> Result<(), ComposeError> {
    if !seen.insert(module.to_owned()) {
        return Ok(());
    }
    let text = sources.text(module).ok_or_else(|| err(module, 0, "no such module"))?;
    for (i, line) in text.lines().enumerate() {
        let Some((word, args)) = directive(line) else { continue };
        let at = |message: String| err(module, i + 1, message);
        match word {
            "option" => {
                let (name, values) =
                    args.split_once('=').ok_or_else(|| at(format!("option needs NAME = VALUES, got {args:?}")))?;
                let name = name.trim().to_owned();
                let values = match values.trim() {
                    "codec" => None,
                    list => Some(
                        list.split_whitespace()
                            .map(|v| v.parse().map(Value::Int).unwrap_or_else(|_| Value::Name(v.to_owned())))
                            .collect::<Vec<_>>(),
                    ),
                };
                if values.as_ref().is_some_and(Vec::is_empty) {
                    return Err(at(format!("option {name} has no values")));
                }
                if let Some(same) = found.options.iter().find(|o| o.name == name) {
                    if same.values != values {
                        return Err(at(format!("option {name} is declared elsewhere with other values")));
                    }
                } else {
                    found.options.push(OptionDecl { name, values });
                }
            }
            "skip" => found.skips.push((args.to_owned(), module.to_owned(), i + 1)),
            "require" => {
                let (feature, condition) =
                    args.split_once(" if ").ok_or_else(|| at("require needs FEATURE if CONDITION".into()))?;
                let feature = feature.trim();
                if !matches!(feature, "f16" | "subgroup") {
                    return Err(at(format!("unknown feature {feature:?}, known: f16, subgroup")));
                }
                found.requires.push((feature.to_owned(), condition.trim().to_owned(), module.to_owned(), i + 1));
            }
            "import" => {
                if args == "codec" {
                    if let Some(codec) = codec {
                        declare(sources, &format!("codec/{codec}"), None, seen, found)?;
                    }
                } else {
                    declare(sources, args, codec, seen, found).map_err(|mut e| {
                        if e.line == 0 {
                            e = at(format!("import of {args:?}: {}", e.message));
                        }
                        e
                    })?;
                }
            }
            "if" | "elif" | "else" | "endif" | "for" | "end" => {}
            other => return Err(at(format!("unknown directive {other:?}"))),
        }
    }
    Ok(())
}

/// Fills in defaults (the first value) and refuses options and values that the kernel does not declare.
pub fn complete(sources: &dyn Sources, kernel: &str, given: &Options) -> Result<Options, ComposeError> {
    let codec = match given.get("CODEC") {
        Some(Value::Name(name)) => Some(name.as_str()),
        Some(Value::Int(i)) => return Err(err(kernel, 0, format!("CODEC names a module, not {i}"))),
        None => None,
    };
    let decl = declarations(sources, kernel, codec)?;
    let mut options = Options::new();
    for option in &decl.options {
        let value = match (&option.values, given.get(&option.name)) {
            (None, Some(value)) => value.clone(),
            (None, None) => return Err(err(kernel, 0, format!("option {} must be given", option.name))),
            (Some(values), Some(value)) => {
                if !values.contains(value) {
                    let known = values.iter().map(Value::to_string).collect::<Vec<_>>().join(" ");
                    return Err(err(kernel, 0, format!("option {} = {value} is none of: {known}", option.name)));
                }
                value.clone()
            }
            (Some(values), None) => values[0].clone(),
        };
        options.insert(option.name.clone(), value);
    }
    if let Some(unknown) = given.keys().find(|name| !options.contains_key(*name)) {
        return Err(err(kernel, 0, format!("has no option {unknown}")));
    }
    Ok(options)
}

/// Every permutation of a kernel that may be asked for.
///
/// A `//:skip` may name an option that only some codecs have: for the others it is 0.
pub fn permutations(sources: &dyn Sources, kernel: &str) -> Result<Vec<Options>, ComposeError> {
    let own = declarations(sources, kernel, None)?;
    let codecs = if own.options.iter().any(|o| o.values.is_none()) {
        sources.codecs().into_iter().map(Some).collect()
    } else {
        vec![None]
    };
    let mut declared = Vec::new();
    let mut elsewhere = Options::new();
    for codec in codecs {
        let decl = declarations(sources, kernel, codec.as_deref())?;
        elsewhere.extend(decl.options.iter().map(|option| (option.name.clone(), Value::Int(0))));
        declared.push((codec, decl));
    }
    let mut all = Vec::new();
    for (codec, decl) in declared {
        let mut partial = vec![Options::new()];
        for option in &decl.options {
            let values = match (&option.values, &codec) {
                (Some(values), _) => values.clone(),
                (None, Some(codec)) => vec![Value::Name(codec.clone())],
                (None, None) => Vec::new(),
            };
            partial = partial
                .iter()
                .flat_map(|base| {
                    values.iter().map(|value| {
                        let mut next = base.clone();
                        next.insert(option.name.clone(), value.clone());
                        next
                    })
                })
                .collect();
        }
        for options in partial {
            let mut scope = elsewhere.clone();
            scope.extend(options.clone());
            let mut skipped = false;
            for (condition, module, line) in &decl.skips {
                skipped |= evaluate(condition, &scope).map_err(|m| err(module, *line, m))? != 0;
            }
            if !skipped {
                all.push(options);
            }
        }
    }
    Ok(all)
}

/// Composes a kernel with a complete set of options.
pub fn compose(sources: &dyn Sources, kernel: &str, options: &Options) -> Result<Composition, ComposeError> {
    let codec = match options.get("CODEC") {
        Some(Value::Name(name)) => Some(name.clone()),
        _ => None,
    };
    let decl = declarations(sources, kernel, codec.as_deref())?;
    let mut needs = BTreeSet::new();
    for (feature, condition, module, line) in &decl.requires {
        if evaluate(condition, options).map_err(|m| err(module, *line, m))? != 0 {
            needs.insert(feature.as_str());
        }
    }
    let (f16, subgroup) = (needs.contains("f16"), needs.contains("subgroup"));
    let mut composer = Composer { sources, codec, seen: BTreeSet::new(), source: String::new(), origins: Vec::new() };
    if f16 {
        composer.emit("enable f16;", kernel, 1);
    }
    let mut scope = options.clone();
    composer.module(kernel, &mut scope)?;
    Ok(Composition { source: composer.source, origins: composer.origins, f16, subgroup })
}

struct Composer<'a> {
    sources: &'a dyn Sources,
    codec: Option<String>,
    seen: BTreeSet<String>,
    source: String,
    origins: Vec<(String, usize)>,
}

impl Composer<'_> {
    fn emit(&mut self, line: &str, module: &str, number: usize) {
        self.source.push_str(line);
        self.source.push('\n');
        self.origins.push((module.to_owned(), number));
    }

    fn module(&mut self, module: &str, scope: &mut Options) -> Result<(), ComposeError> {
        if !self.seen.insert(module.to_owned()) {
            return Ok(());
        }
        let text = self.sources.text(module).ok_or_else(|| err(module, 0, "no such module"))?;
        let lines: Vec<(usize, &str)> = text.lines().enumerate().map(|(i, l)| (i + 1, l)).collect();
        self.block(module, &lines, scope)
    }

    /// Emits a run of lines in which every `if` has its `endif` and every `for` its `end`.
    fn block(&mut self, module: &str, lines: &[(usize, &str)], scope: &mut Options) -> Result<(), ComposeError> {
        // Each open `if`: is this branch live, has any branch been live, were the surroundings live.
        let mut ifs: Vec<(bool, bool, bool)> = Vec::new();
        let mut i = 0;
        while i < lines.len() {
            let (number, line) = lines[i];
            i += 1;
            let live = ifs.last().is_none_or(|f| f.0);
            let at = |message: String| err(module, number, message);
            let Some((word, args)) = directive(line) else {
                if live {
                    let text = substitute(line, scope).map_err(at)?;
                    self.emit(&text, module, number);
                }
                continue;
            };
            match word {
                "if" => {
                    let now = live && evaluate(args, scope).map_err(at)? != 0;
                    ifs.push((now, now, live));
                }
                "elif" | "else" => {
                    let f = ifs.last_mut().ok_or_else(|| at(format!("{word} without if")))?;
                    let now = f.2 && !f.1 && (word == "else" || evaluate(args, scope).map_err(at)? != 0);
                    f.0 = now;
                    f.1 |= now;
                }
                "endif" => {
                    ifs.pop().ok_or_else(|| at("endif without if".into()))?;
                }
                "for" => {
                    let mut depth = 1;
                    let start = i;
                    while i < lines.len() {
                        match directive(lines[i].1).map(|d| d.0) {
                            Some("for") => depth += 1,
                            Some("end") => depth -= 1,
                            _ => {}
                        }
                        if depth == 0 {
                            break;
                        }
                        i += 1;
                    }
                    if depth != 0 {
                        return Err(at("for without end".into()));
                    }
                    let body = &lines[start..i];
                    i += 1;
                    if !live {
                        continue;
                    }
                    let (name, range) = args
                        .split_once(" in ")
                        .and_then(|(name, range)| Some((name.trim(), range.split_once("..")?)))
                        .ok_or_else(|| at(format!("for needs NAME in FROM..TO, got {args:?}")))?;
                    let from = evaluate(range.0, scope).map_err(at)?;
                    let to = evaluate(range.1, scope).map_err(at)?;
                    let shadowed = scope.get(name).cloned();
                    for value in from..to {
                        scope.insert(name.to_owned(), Value::Int(value));
                        self.block(module, body, scope)?;
                    }
                    match shadowed {
                        Some(value) => scope.insert(name.to_owned(), value),
                        None => scope.remove(name),
                    };
                }
                "end" => return Err(at("end without for".into())),
                "import" if live => match (args, self.codec.clone()) {
                    ("codec", Some(codec)) => self.module(&format!("codec/{codec}"), scope)?,
                    ("codec", None) => return Err(at("option CODEC is not set".into())),
                    (path, _) => self.module(path, scope)?,
                },
                _ => {}
            }
        }
        if ifs.is_empty() { Ok(()) } else { Err(err(module, lines.last().map_or(0, |l| l.0), "if without endif")) }
    }
}

fn substitute(line: &str, scope: &Options) -> Result<String, String> {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(start) = rest.find("#{") {
        out.push_str(&rest[..start]);
        let tail = &rest[start + 2..];
        let end = tail.find('}').ok_or("#{ without }")?;
        out.push_str(&evaluate(&tail[..end], scope)?.to_string());
        rest = &tail[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Evaluates an integer expression: `|| && == != < > <= >= + - * / % ! ( )` over numbers and options.
/// A name-valued option can only be compared with `==` and `!=`.
fn evaluate(text: &str, scope: &Options) -> Result<i64, String> {
    let mut parser = Expression { tokens: tokenize(text)?, next: 0, scope };
    let value = parser.binary(0)?;
    if parser.next != parser.tokens.len() {
        return Err(format!("cannot read {text:?} past {:?}", parser.tokens[parser.next]));
    }
    match value {
        Value::Int(i) => Ok(i),
        Value::Name(name) => Err(format!("{name:?} is not a number")),
    }
}

fn tokenize(text: &str) -> Result<Vec<String>, String> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        let c = chars[i];
        if c.is_whitespace() {
            i += 1;
        } else if c.is_alphanumeric() || c == '_' {
            let start = i;
            while i < chars.len() && (chars[i].is_alphanumeric() || chars[i] == '_') {
                i += 1;
            }
            tokens.push(chars[start..i].iter().collect());
        } else {
            let two: String = chars[i..(i + 2).min(chars.len())].iter().collect();
            if ["||", "&&", "==", "!=", "<=", ">="].contains(&two.as_str()) {
                tokens.push(two);
                i += 2;
            } else if "+-*/%<>!()".contains(c) {
                tokens.push(c.to_string());
                i += 1;
            } else {
                return Err(format!("unexpected {c:?} in {text:?}"));
            }
        }
    }
    Ok(tokens)
}

struct Expression<'a> {
    tokens: Vec<String>,
    next: usize,
    scope: &'a Options,
}

const LEVELS: [&[&str]; 5] = [&["||"], &["&&"], &["==", "!=", "<", ">", "<=", ">="], &["+", "-"], &["*", "/", "%"]];

impl Expression<'_> {
    fn binary(&mut self, level: usize) -> Result<Value, String> {
        let Some(operators) = LEVELS.get(level) else { return self.unary() };
        let mut left = self.binary(level + 1)?;
        while let Some(op) = self.tokens.get(self.next).filter(|t| operators.contains(&t.as_str())).cloned() {
            self.next += 1;
            let right = self.binary(level + 1)?;
            left = Value::Int(match (op.as_str(), &left, &right) {
                ("==", a, b) => (a == b).into(),
                ("!=", a, b) => (a != b).into(),
                (op, Value::Int(a), Value::Int(b)) => {
                    let (a, b) = (*a, *b);
                    match op {
                        "||" => (a != 0 || b != 0).into(),
                        "&&" => (a != 0 && b != 0).into(),
                        "<" => (a < b).into(),
                        ">" => (a > b).into(),
                        "<=" => (a <= b).into(),
                        ">=" => (a >= b).into(),
                        "+" => a.checked_add(b).ok_or("overflow")?,
                        "-" => a.checked_sub(b).ok_or("overflow")?,
                        "*" => a.checked_mul(b).ok_or("overflow")?,
                        "/" => a.checked_div(b).ok_or("division by zero")?,
                        _ => a.checked_rem(b).ok_or("division by zero")?,
                    }
                }
                (op, a, b) => return Err(format!("cannot compute {a} {op} {b}")),
            });
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Value, String> {
        let token = self.tokens.get(self.next).cloned().ok_or("the expression ends early")?;
        self.next += 1;
        match token.as_str() {
            "!" => match self.unary()? {
                Value::Int(i) => Ok(Value::Int((i == 0).into())),
                Value::Name(name) => Err(format!("cannot negate {name}")),
            },
            "-" => match self.unary()? {
                Value::Int(i) => Ok(Value::Int(-i)),
                Value::Name(name) => Err(format!("cannot negate {name}")),
            },
            "(" => {
                let value = self.binary(0)?;
                if self.tokens.get(self.next).is_none_or(|t| t != ")") {
                    return Err("missing )".into());
                }
                self.next += 1;
                Ok(value)
            }
            number if number.chars().all(|c| c.is_ascii_digit()) => {
                number.parse().map(Value::Int).map_err(|e| e.to_string())
            }
            name if name.chars().next().is_some_and(char::is_alphabetic) => match self.scope.get(name) {
                Some(value) => Ok(value.clone()),
                // A bare word beside a name-valued option is that option's value (CODEC == q4_0).
                None if self.scope.values().any(|v| matches!(v, Value::Name(_)))
                    && name.chars().any(char::is_lowercase) =>
                {
                    Ok(Value::Name(name.to_owned()))
                }
                None => Err(format!("unknown option {name}")),
            },
            other => Err(format!("unexpected {other:?}")),
        }
    }
}
