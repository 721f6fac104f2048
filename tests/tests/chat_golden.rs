//! Chat templates against what transformers renders (tests/golden/chat/).

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use tersor_engine::generate::chat::ChatError;
use tersor_engine::generate::{ChatTemplate, Message};

#[derive(Deserialize)]
struct Golden {
    templates: BTreeMap<String, Template>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Template {
    special: BTreeMap<String, String>,
    source: String,
}

#[derive(Deserialize)]
struct Case {
    template: String,
    messages: Vec<Message>,
    add_generation_prompt: bool,
    text: Option<String>,
    refused: Option<String>,
}

#[test]
fn templates_render_as_in_transformers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/chat/golden.json");
    let golden: Golden = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let compile = |template: &Template| {
        ChatTemplate::new(&template.source, template.special.clone().into_iter().collect()).unwrap()
    };
    let templates: BTreeMap<_, _> = golden.templates.iter().map(|(name, template)| (name, compile(template))).collect();
    let mut wrong = Vec::new();
    for case in &golden.cases {
        let expected = match (&case.text, &case.refused) {
            (Some(text), None) => Ok(text.clone()),
            (None, Some(words)) => Err(words.clone()),
            _ => panic!("a case has a text or a refusal"),
        };
        let rendered = match templates[&case.template].render(&case.messages, case.add_generation_prompt) {
            Ok(text) => Ok(text),
            Err(ChatError::Refused(words)) => Err(words),
            Err(other) => Err(format!("{other:?}")),
        };
        if rendered != expected {
            wrong.push(format!("{} {:?}\n{rendered:?}\nnot\n{expected:?}\n", case.template, case.messages));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), golden.cases.len(), wrong.join("\n"));
}
