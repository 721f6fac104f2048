//! Chat templates: from messages to the prompt a model was trained on.
//!
//! In: what a checkpoint says (`tokenizer.chat_template` of a GGUF file, `chat_template` of `tokenizer_config.json`) and
//! messages. Out: the text to encode, control tokens included (with `add_special: false`: where a model wants a token before
//! every text, its template writes it). Templates are Jinja as Hugging Face's transformers runs it: blocks trimmed, Python's
//! methods on strings and maps, `raise_exception`, `strftime_now`, Python's `tojson`, `{% generation %}`.

mod functions;

use minijinja::value::{Value, ValueKind};
use minijinja::{AutoEscape, Environment, ErrorKind, context};
use regex::Regex;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::format::{Checkpoint, GgufMetadata, Meta};

use super::contained;

/// The format that most models without a template of their own have seen.
const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// The most steps a template may take: thousands of messages need about a million.
const STEPS_MAX: u64 = 10_000_000;

/// The name templates are compiled under, for error messages.
const NAME: &str = "chat template";

/// Why a template could not be used.
#[derive(Debug, Error)]
pub enum ChatError {
    /// The template is no valid Jinja, or uses what this engine does not have.
    #[error("the model's chat template does not compile: {0}")]
    Compile(String),
    /// The template refuses the messages, for instance two messages of one role in a row.
    #[error("the model's chat template refuses these messages: {0}")]
    Refused(String),
    /// The template failed on the messages.
    #[error("the model's chat template failed: {0}")]
    Render(String),
}

/// One turn of a chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, or whatever else the template knows.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A message of any role.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    /// `bos_token` and the like, by name.
    special: Value,
    note: Option<String>,
}

impl ChatTemplate {
    /// The template of a checkpoint; ChatML, and a [note](Self::note), where it has none.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self, ChatError> {
        Self::from_meta(checkpoint.meta())
    }

    /// The template that a checkpoint's metadata holds; ChatML, and a [note](Self::note), where it has none.
    pub fn from_meta(meta: &Meta) -> Result<Self, ChatError> {
        let (source, special) = match meta {
            Meta::Gguf(metadata) => (metadata.str("tokenizer.chat_template"), gguf_special_tokens(metadata)),
            Meta::HuggingFace { tokenizer_config: Some(config), .. } => {
                (config.get("chat_template").and_then(choose), special_tokens(config))
            }
            Meta::HuggingFace { tokenizer_config: None, .. } => (None, Vec::new()),
        };
        let mut template = Self::new(source.unwrap_or(CHATML), special)?;
        if source.is_none() {
            template.note = Some("the model has no chat template; ChatML stands in".to_owned());
        }
        Ok(template)
    }

    /// Compiles a template. `special` are the named tokens it may write, such as `("bos_token", "<s>")`.
    pub fn new(source: &str, special: Vec<(String, String)>) -> Result<Self, ChatError> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_fuel(Some(STEPS_MAX));
        environment.set_formatter(python_format);
        environment.set_unknown_method_callback(functions::python_method);
        functions::install(&mut environment);
        environment
            .add_template_owned(NAME, rewritten(source))
            .map_err(|error| ChatError::Compile(describe(&error)))?;
        Ok(Self { environment, source: source.to_owned(), special: Value::from_iter(special), note: None })
    }

    /// The prompt for `messages`; with `add_generation_prompt`, up to where the assistant's next words begin.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, ChatError> {
        let template = self.environment.get_template(NAME).map_err(|error| ChatError::Compile(describe(&error)))?;
        let context = context! { messages, add_generation_prompt, ..self.special.clone() };
        let rendered = contained(|| template.render(context));
        rendered.ok_or_else(|| ChatError::Render("the template engine gave up".to_owned()))?.map_err(|error| {
            functions::refusal(&error).map_or_else(|| ChatError::Render(describe(&error)), ChatError::Refused)
        })
    }

    /// The template's source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What people should know about where the template comes from.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }
}

/// The template in `chat_template`: a string, or the one named `default` (else the first) of a list of named templates.
fn choose(value: &serde_json::Value) -> Option<&str> {
    let named = |entry: &serde_json::Value, name: &str| entry.get("name").and_then(|n| n.as_str()) == Some(name);
    match value {
        serde_json::Value::String(source) => Some(source),
        serde_json::Value::Array(list) => {
            let entry = list.iter().find(|entry| named(entry, "default")).or(list.first())?;
            entry.get("template")?.as_str()
        }
        _ => None,
    }
}

/// `bos_token`, `eos_token`, … of a `tokenizer_config.json`: strings, or objects with a `content`.
fn special_tokens(config: &serde_json::Value) -> Vec<(String, String)> {
    let entries = config.as_object().into_iter().flatten();
    let tokens = entries.filter(|(name, _)| name.ends_with("_token")).filter_map(|(name, value)| {
        let text = value.as_str().or_else(|| value.get("content")?.as_str())?;
        Some((name.clone(), text.to_owned()))
    });
    tokens.collect()
}

/// The same from a GGUF file's ids.
fn gguf_special_tokens(metadata: &GgufMetadata) -> Vec<(String, String)> {
    let texts = metadata.strings("tokenizer.ggml.tokens").unwrap_or(&[]);
    let names = [("bos", "bos"), ("eos", "eos"), ("unknown", "unk"), ("padding", "pad")];
    let token = |(key, name): (&str, &str)| {
        let id = metadata.u32(&format!("tokenizer.ggml.{key}_token_id"))?;
        Some((format!("{name}_token"), texts.get(id as usize)?.clone()))
    };
    names.into_iter().filter_map(token).collect()
}

/// The template in words that this Jinja has.
///
/// `{% generation %}` marks what a model is trained to say; for prompts it is nothing but a block, and a block that is always
/// taken keeps the trimming around it. `[::-1]` becomes a method, since minijinja's slices with negative steps panic on what
/// is empty.
fn rewritten(source: &str) -> String {
    const REWRITES: [(&str, &str); 3] = [
        (r"\{%([-+]?)\s*generation\s*([-+]?)%\}", "{%$1 if true $2%}"),
        (r"\{%([-+]?)\s*endgeneration\s*([-+]?)%\}", "{%$1 endif $2%}"),
        (r"\[\s*:\s*:\s*-\s*1\s*\]", ".__reversed__()"),
    ];
    REWRITES.iter().fold(source.to_owned(), |source, (pattern, replacement)| match Regex::new(pattern) {
        Ok(pattern) => pattern.replace_all(&source, *replacement).into_owned(),
        Err(_) => source, // never: the patterns are fixed
    })
}

/// Prints values as Python does where Jinja's output differs: `None`, `True`, `False`.
fn python_format(out: &mut minijinja::Output, state: &minijinja::State, value: &Value) -> Result<(), minijinja::Error> {
    let text = match value.kind() {
        ValueKind::None => "None",
        ValueKind::Bool if value.is_true() => "True",
        ValueKind::Bool => "False",
        _ => return minijinja::escape_formatter(out, state, value),
    };
    out.write_str(text).map_err(|_| minijinja::Error::from(ErrorKind::WriteFailure))
}

/// An error in one line: what, and where in the template.
fn describe(error: &minijinja::Error) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    error.line().map_or_else(|| what.clone(), |line| format!("{what} (line {line})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, messages: &[(&str, &str)]) -> Result<String, ChatError> {
        let messages: Vec<_> = messages.iter().map(|&(role, content)| Message::new(role, content)).collect();
        ChatTemplate::new(source, vec![("bos_token".to_owned(), "<s>".to_owned())])?.render(&messages, true)
    }

    #[test]
    fn chatml_stands_in_and_says_so() {
        let meta = Meta::Gguf(GgufMetadata::new());
        let template = ChatTemplate::from_meta(&meta).unwrap();
        let text = template.render(&[Message::new("user", "a <b> & c")], true).unwrap();
        assert_eq!(text, "<|im_start|>user\na <b> & c<|im_end|>\n<|im_start|>assistant\n");
        assert!(template.note().is_some());
    }

    #[test]
    fn templates_come_from_strings_and_lists() {
        let config = serde_json::json!({
            "chat_template": [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "{{ eos_token }}{{ bos_token }}!"}],
            "bos_token": {"content": "<s>", "lstrip": false},
            "eos_token": "</s>",
            "pad_token": null,
        });
        let meta = Meta::HuggingFace {
            config: serde_json::Value::Null,
            generation: None,
            tokenizer_json: None,
            tokenizer_config: Some(config),
            st_metadata: Default::default(),
        };
        let template = ChatTemplate::from_meta(&meta).unwrap();
        assert_eq!(template.render(&[], false).unwrap(), "</s><s>!");
        assert!(template.note().is_none());
    }

    #[test]
    fn refusals_carry_the_templates_words() {
        let source =
            "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}ok";
        assert_eq!(render(source, &[("user", "hi")]).unwrap(), "ok");
        match render(source, &[("system", "hi")]) {
            Err(ChatError::Refused(message)) => assert_eq!(message, "System role not supported"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pythons_ways() {
        let source = "{{ none }} {{ 1 == 1 }} {{ messages[0].content.strip().split(' ')[-1].startswith('b') }} \
                      {{ {'b': [1, \"<é'\"], 'a': none} | tojson }} {{ messages[::-1][0]['role'] }} {{ bos_token }}";
        assert_eq!(
            render(source, &[("user", " a b "), ("assistant", "c")]).unwrap(),
            "None True True {\"b\": [1, \"<é'\"], \"a\": null} assistant <s>"
        );
    }

    #[test]
    fn generation_blocks_are_plain_blocks() {
        let source = "{%- for m in messages %}\n{% generation %}\n{{ m.content }}\n{% endgeneration %}\n{%- endfor %}";
        assert_eq!(render(source, &[("user", "a"), ("assistant", "b")]).unwrap(), "a\nb\n");
    }

    #[test]
    fn broken_and_endless_templates_are_errors() {
        assert!(matches!(render("{% if %}", &[]), Err(ChatError::Compile(_))));
        assert!(matches!(render("{{ messages.a.b.c }}", &[]), Err(ChatError::Render(_))));
        let nested = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}";
        assert!(matches!(render(nested, &[]), Err(ChatError::Render(_))));
        let recursive = "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}";
        assert!(matches!(render(recursive, &[]), Err(ChatError::Render(_))));
    }
}
