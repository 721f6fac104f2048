//! What transformers adds to Jinja: `raise_exception`, `strftime_now`, and a `tojson` that writes as Python's `json` does.

use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, Error, ErrorKind, State};
use serde_json::Value as Json;
use web_time::{SystemTime, UNIX_EPOCH};

/// Marks errors that a template raised on purpose.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

/// Adds the functions and filters to an environment.
pub(super) fn install(environment: &mut Environment) {
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Refusal(message)))
    });
    environment.add_function("strftime_now", |format: String| {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        strftime(seconds, &format)
    });
    environment.add_filter("tojson", tojson);
}

/// Python's methods on strings, lists and maps, and `__reversed__` for what [`super::rewritten`] puts in the place of `[::-1]`.
pub(super) fn python_method(state: &State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match (method, value.as_str()) {
        ("__reversed__", Some(text)) => Ok(text.chars().rev().collect::<String>().into()),
        ("__reversed__", None) => {
            let mut items: Vec<Value> = value.try_iter()?.collect();
            items.reverse();
            Ok(items.into())
        }
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args),
    }
}

/// The message of the `raise_exception` that an error comes from.
pub(super) fn refusal(error: &Error) -> Option<String> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(Refusal(message)) = error.downcast_ref() {
            return Some(message.clone());
        }
        source = error.source();
    }
    None
}

/// Python's `json.dumps`: `", "` and `": "` between items, or a line each with `indent`.
fn tojson(value: Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let ensure_ascii: Option<bool> = options.get("ensure_ascii")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    if indent.is_some_and(|indent| indent > INDENT_MAX) {
        return Err(Error::new(ErrorKind::InvalidOperation, format!("tojson: an indent above {INDENT_MAX}")));
    }
    let mut json = serde_json::to_value(&value)
        .map_err(|error| Error::new(ErrorKind::InvalidOperation, format!("tojson: {error}")))?;
    if sort_keys == Some(true) {
        json.sort_all_objects();
    }
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.as_str(), key.as_str()),
        _ => (if indent.is_some() { "," } else { ", " }, ": "),
    };
    let style = JsonStyle { item, key, indent, ensure_ascii: ensure_ascii == Some(true) };
    let mut out = String::new();
    style.write(&json, 0, &mut out);
    Ok(Value::from(out))
}

/// The most spaces a level of JSON may be indented by.
const INDENT_MAX: usize = 16;

/// Python's way to lay out JSON.
struct JsonStyle<'a> {
    item: &'a str,
    key: &'a str,
    indent: Option<usize>,
    ensure_ascii: bool,
}

impl JsonStyle<'_> {
    fn write(&self, value: &Json, depth: usize, out: &mut String) {
        match value {
            Json::String(text) => self.write_string(text, out),
            Json::Array(values) => self.write_items('[', ']', values.iter(), depth, out, |value, out| {
                self.write(value, depth + 1, out);
            }),
            Json::Object(entries) => self.write_items('{', '}', entries.iter(), depth, out, |(key, value), out| {
                self.write_string(key, out);
                out.push_str(self.key);
                self.write(value, depth + 1, out);
            }),
            Json::Null | Json::Bool(_) | Json::Number(_) => out.push_str(&value.to_string()),
        }
    }

    fn write_items<T>(
        &self,
        open: char,
        close: char,
        items: impl ExactSizeIterator<Item = T>,
        depth: usize,
        out: &mut String,
        mut write: impl FnMut(T, &mut String),
    ) {
        let new_line = |depth: usize, out: &mut String| {
            if let Some(indent) = self.indent {
                out.push('\n');
                out.extend(std::iter::repeat_n(' ', indent * depth));
            }
        };
        out.push(open);
        let empty = items.len() == 0;
        for (index, item) in items.enumerate() {
            if index > 0 {
                out.push_str(self.item);
            }
            new_line(depth + 1, out);
            write(item, out);
        }
        if !empty {
            new_line(depth, out);
        }
        out.push(close);
    }

    fn write_string(&self, text: &str, out: &mut String) {
        let quoted = Json::from(text).to_string();
        if !self.ensure_ascii {
            return out.push_str(&quoted);
        }
        for character in quoted.chars() {
            if character.is_ascii() {
                out.push(character);
            } else {
                let units =
                    character.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>();
                out.push_str(&units);
            }
        }
    }
}

const WEEKDAYS: [&str; 7] = ["Thursday", "Friday", "Saturday", "Sunday", "Monday", "Tuesday", "Wednesday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Formats a time, in seconds since 1970, as C's `strftime` does in UTC and the C locale. Directives that no template is
/// known to use stay as they are.
fn strftime(seconds: u64, format: &str) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_date(days);
    let weekday = WEEKDAYS[(days % 7) as usize];
    let month_name = MONTHS[month as usize - 1];
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let hour12 = (hour + 11) % 12 + 1;
    let half = if hour < 12 { "AM" } else { "PM" };
    let mut out = String::new();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let mut directive = characters.next();
        // glibc: no padding.
        let plain = directive == Some('-');
        if plain {
            directive = characters.next();
        }
        let number = |value: u64| if plain { value.to_string() } else { format!("{value:02}") };
        let text = match directive {
            Some('Y') => year.to_string(),
            Some('y') => number(year % 100),
            Some('m') => number(month),
            Some('d') => number(day),
            Some('e') => format!("{day:2}"),
            Some('H') => number(hour),
            Some('I') => number(hour12),
            Some('M') => number(minute),
            Some('S') => number(second),
            Some('p') => half.to_owned(),
            Some('B') => month_name.to_owned(),
            Some('b' | 'h') => month_name[..3].to_owned(),
            Some('A') => weekday.to_owned(),
            Some('a') => weekday[..3].to_owned(),
            Some('F') => format!("{year}-{month:02}-{day:02}"),
            Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
            Some('Z') => "UTC".to_owned(),
            Some('z') => "+0000".to_owned(),
            Some('%') => "%".to_owned(),
            Some(other) => format!("%{}{other}", if plain { "-" } else { "" }),
            None => "%".to_owned(),
        };
        out.push_str(&text);
    }
    out
}

/// Year, month and day of the Gregorian calendar, of days since 1970-01-01. Years are counted from March, so that leap days
/// come last, in eras of 400 years (146,097 days); 153 days are five months from March on.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since 0000-03-01
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(strftime(0, "%a %A %Y-%m-%d %H:%M:%S"), "Thu Thursday 1970-01-01 00:00:00");
        assert_eq!(strftime(951_782_400, "%d %b %Y, %B %-d, %y, %q%"), "29 Feb 2000, February 29, 00, %q%");
        assert_eq!(strftime(1_735_689_599, "%F %T %I %p"), "2024-12-31 23:59:59 11 PM");
        assert_eq!(civil_date(4_102_444_800 / 86_400), (2100, 1, 1));
    }

    #[test]
    fn json_as_python_writes_it() {
        let json = evaluate;
        assert_eq!(json("{'b': [1, 2.5, 'é\"'], 'a': {}} | tojson"), "{\"b\": [1, 2.5, \"é\\\"\"], \"a\": {}}");
        assert_eq!(json("{'b': [1], 'a': []} | tojson(indent=2)"), "{\n  \"b\": [\n    1\n  ],\n  \"a\": []\n}");
        assert_eq!(json("{'b': 'é😀'} | tojson(ensure_ascii=true)"), "{\"b\": \"\\u00e9\\ud83d\\ude00\"}");
        assert_eq!(json("{'b': 1, 'a': 2} | tojson(separators=(',', ':'), sort_keys=true)"), "{\"a\":2,\"b\":1}");
    }

    fn evaluate(expression: &str) -> String {
        let mut environment = Environment::new();
        install(&mut environment);
        environment.compile_expression(expression).unwrap().eval(()).unwrap().to_string()
    }
}
