//! The directives of ggml-webgpu's shaders: `#include`, `#define` of names, `#ifdef`, `#ifndef`, `#if` and `#elif` of `defined(…)`,
//! `#else`, `#endif`.

use std::collections::HashMap;

/// Composes a shader. `file` gives the text of an included file; `defines` are names with their values.
pub fn preprocess(
    text: &str,
    defines: &[(&str, &str)],
    file: &dyn Fn(&str) -> Result<String, String>,
) -> Result<String, String> {
    let macros = defines.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut state = State { macros, out: String::new(), file };
    state.lines(text, 0)?;
    Ok(state.out)
}

struct State<'a> {
    macros: HashMap<String, String>,
    out: String,
    file: &'a dyn Fn(&str) -> Result<String, String>,
}

/// What becomes of the lines of a section.
#[derive(Clone, Copy, PartialEq)]
enum Section {
    Taken,
    /// Its condition did not hold, and none before it.
    Waiting,
    /// Another one was taken, or all around it is left out.
    Over,
}

impl State<'_> {
    fn lines(&mut self, text: &str, depth: usize) -> Result<(), String> {
        if depth > 8 {
            return Err("files include one another".into());
        }
        let mut sections = Vec::new();
        for line in text.lines() {
            let active = sections.iter().all(|section| *section == Section::Taken);
            let Some(directive) = line.trim_start().strip_prefix('#') else {
                if active {
                    let line = self.expand(line, 0)?;
                    self.out.push_str(&line);
                    self.out.push('\n');
                }
                continue;
            };
            let directive = directive.split("//").next().unwrap_or_default().trim();
            let (word, rest) = directive.split_once(char::is_whitespace).unwrap_or((directive, ""));
            let rest = rest.trim();
            let open = |holds: bool| match (active, holds) {
                (false, _) => Section::Over,
                (true, true) => Section::Taken,
                (true, false) => Section::Waiting,
            };
            match word {
                "ifdef" => sections.push(open(self.macros.contains_key(rest))),
                "ifndef" => sections.push(open(!self.macros.contains_key(rest))),
                "if" => sections.push(open(self.holds(rest)?)),
                "elif" | "else" => {
                    let holds = word == "else" || self.holds(rest)?;
                    let last = sections.last_mut().ok_or_else(|| format!("{line} without an #if"))?;
                    *last = match (*last, holds) {
                        (Section::Waiting, true) => Section::Taken,
                        (Section::Waiting, false) => Section::Waiting,
                        _ => Section::Over,
                    };
                }
                "endif" => drop(sections.pop().ok_or_else(|| format!("{line} without an #if"))?),
                "define" if active => {
                    let (name, value) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                    if name.contains('(') {
                        return Err(format!("{line}: a macro with parameters"));
                    }
                    self.macros.insert(name.to_owned(), value.trim().to_owned());
                }
                "include" if active => {
                    let text = (self.file)(rest.trim_matches('"'))?;
                    self.lines(&text, depth + 1)?;
                }
                "define" | "include" => {}
                _ => return Err(format!("{line}: an unknown directive")),
            }
        }
        if sections.is_empty() { Ok(()) } else { Err("an #if without its #endif".into()) }
    }

    /// A line with all names replaced.
    fn expand(&self, line: &str, depth: usize) -> Result<String, String> {
        if depth > 16 {
            return Err(format!("{line}: a macro in terms of itself"));
        }
        let (mut out, mut replaced, mut rest) = (String::new(), false, line);
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        while let Some(start) = rest.find(is_name) {
            out.push_str(&rest[..start]);
            let end = rest[start..].find(|c| !is_name(c)).map_or(rest.len(), |length| start + length);
            let name = &rest[start..end];
            match self.macros.get(name) {
                Some(value) => {
                    out.push_str(value);
                    replaced = true;
                }
                None => out.push_str(name),
            }
            rest = &rest[end..];
        }
        out.push_str(rest);
        if replaced { self.expand(&out, depth + 1) } else { Ok(out) }
    }

    /// Whether a condition of `defined(…)`, `!`, `&&`, `||` and parentheses holds.
    fn holds(&self, condition: &str) -> Result<bool, String> {
        let spaced = ["(", ")", "!", "&&", "||"]
            .iter()
            .fold(condition.to_owned(), |text, sign| text.replace(sign, &format!(" {sign} ")));
        let tokens: Vec<&str> = spaced.split_whitespace().collect();
        let mut at = 0;
        let holds = self.either(&tokens, &mut at).filter(|_| at == tokens.len());
        holds.ok_or_else(|| format!("#if {condition}: not understood"))
    }

    fn either(&self, tokens: &[&str], at: &mut usize) -> Option<bool> {
        let mut holds = self.both(tokens, at)?;
        while tokens.get(*at) == Some(&"||") {
            *at += 1;
            holds |= self.both(tokens, at)?;
        }
        Some(holds)
    }

    fn both(&self, tokens: &[&str], at: &mut usize) -> Option<bool> {
        let mut holds = self.one(tokens, at)?;
        while tokens.get(*at) == Some(&"&&") {
            *at += 1;
            holds &= self.one(tokens, at)?;
        }
        Some(holds)
    }

    fn one(&self, tokens: &[&str], at: &mut usize) -> Option<bool> {
        let token = *tokens.get(*at)?;
        *at += 1;
        match token {
            "!" => Some(!self.one(tokens, at)?),
            "(" => {
                let holds = self.either(tokens, at)?;
                *at += 1;
                (tokens.get(*at - 1) == Some(&")")).then_some(holds)
            }
            "defined" => {
                let [open, name, close] = tokens.get(*at..*at + 3)?.try_into().ok()?;
                *at += 3;
                ((open, close) == ("(", ")")).then(|| self.macros.contains_key(name))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::preprocess;

    #[test]
    fn sections_macros_and_includes() {
        let file = |name: &str| match name {
            "a.tmpl" => Ok("#define TWO (ONE + ONE)\nfrom a\n".to_owned()),
            _ => Err(format!("no {name}")),
        };
        let run = |text: &str| preprocess(text, &[("ONE", "1u"), ("ON", "")], &file);
        assert_eq!(run("#include \"a.tmpl\"\nx = TWO * ONES;").unwrap(), "from a\nx = (1u + 1u) * ONES;\n");
        let nested = "#ifdef OFF\n#if defined(ON)\na\n#endif\n#elif (defined(ON) || defined(OFF)) && !defined(OFF) // why\nb\n#else\nc\n#endif // OFF\nd";
        assert_eq!(run(nested).unwrap(), "b\nd\n");
        assert_eq!(run("#ifndef ON\na\n#else\nb\n#endif").unwrap(), "b\n");
        for broken in ["#endif", "#if defined(ON)", "#if 1\n#endif", "#include \"b\"", "#define f(x) x", "#frob"] {
            assert!(run(broken).is_err(), "{broken}");
        }
    }
}
