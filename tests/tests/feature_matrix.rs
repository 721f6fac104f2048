//! The feature matrix (`docs/methods/features.toml`): everything that is registered is in it, everything in it is tested and documented,
//! every category of the survey is implemented, specified or declared out of scope; and `docs/methods/README.md` is what it renders to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use tersor_engine::codec;

const MATRIX: &str = "docs/methods/features.toml";
const PAGE: &str = "docs/methods/README.md";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Matrix {
    codecs: BTreeMap<String, Row>,
    additions: BTreeMap<String, Row>,
    wrappers: BTreeMap<String, Row>,
    stages: BTreeMap<String, Row>,
    kernels: BTreeMap<String, Row>,
    survey: Vec<Category>,
}

/// A method or kernel.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    category: String,
    /// Other categories that it covers too.
    #[serde(default)]
    also: Vec<String>,
    /// `path/of/file.rs::name_of_the_test`.
    tests: Vec<String>,
    /// A page, or the file whose head documents it.
    doc: String,
}

impl Row {
    fn covers(&self, category: &str) -> bool {
        self.category == category || self.also.iter().any(|also| also == category)
    }
}

/// A category of the survey.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Category {
    category: String,
    title: String,
    what: String,
    /// What is planned or missing, with its source.
    spec: Option<String>,
    /// Why it is none of tersor's business.
    out: Option<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn matrix() -> Matrix {
    toml::from_str(&std::fs::read_to_string(root().join(MATRIX)).unwrap()).unwrap_or_else(|e| panic!("{MATRIX}: {e}"))
}

impl Matrix {
    /// All rows, with the table they are in.
    fn rows(&self) -> impl Iterator<Item = (&'static str, &String, &Row)> {
        let tables = [
            ("codecs", &self.codecs),
            ("additions", &self.additions),
            ("wrappers", &self.wrappers),
            ("stages", &self.stages),
            ("kernels", &self.kernels),
        ];
        tables.into_iter().flat_map(|(table, rows)| rows.iter().map(move |(name, row)| (table, name, row)))
    }
}

/// Whether a Rust source has a test of this name: a function under `#[test]` (also inside `proptest!`) or `#[kernel_test]`.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let declared = |line: &str| {
        line.strip_prefix("fn ").is_some_and(|rest| rest.strip_prefix(name).is_some_and(|r| r.starts_with('(')))
    };
    lines.iter().enumerate().any(|(at, line)| {
        // Other attributes and comments may stand between.
        declared(line)
            && lines[..at]
                .iter()
                .rev()
                .take_while(|l| l.starts_with("#[") || l.starts_with("//"))
                .any(|l| matches!(*l, "#[test]" | "#[kernel_test]"))
    })
}

#[test]
fn everything_registered_is_listed_and_everything_listed_is_registered() {
    let matrix = matrix();
    let names = codec::names();
    let kernels: Vec<&str> = tersor_shaders::kernels().iter().map(|(name, _)| *name).collect();
    for (table, listed, registered) in [
        ("codecs", &matrix.codecs, names.codecs),
        ("additions", &matrix.additions, names.additions),
        ("wrappers", &matrix.wrappers, names.wrappers),
        ("stages", &matrix.stages, names.stages),
        ("kernels", &matrix.kernels, kernels),
    ] {
        let listed: BTreeSet<&str> = listed.keys().map(String::as_str).collect();
        let registered: BTreeSet<&str> = registered.into_iter().collect();
        let missing: Vec<_> = registered.difference(&listed).collect();
        assert!(missing.is_empty(), "{MATRIX}: [{table}] lacks a line for {missing:?}");
        let unknown: Vec<_> = listed.difference(&registered).collect();
        assert!(unknown.is_empty(), "{MATRIX}: [{table}] lists {unknown:?}, which the engine does not have");
    }
}

#[test]
fn every_line_has_a_test_and_a_document() {
    let matrix = matrix();
    for (table, name, row) in matrix.rows() {
        assert!(!row.tests.is_empty(), "{MATRIX}: [{table}] {name} has no test");
        for test in &row.tests {
            let (file, function) = test.split_once("::").unwrap_or_else(|| panic!("{name}: {test} is no file::test"));
            let source = std::fs::read_to_string(root().join(file));
            let source = source.unwrap_or_else(|e| panic!("{MATRIX}: [{table}] {name}: {file}: {e}"));
            assert!(has_test(&source, function), "{MATRIX}: [{table}] {name}: {file} has no test {function}");
        }
        assert!(root().join(&row.doc).is_file(), "{MATRIX}: [{table}] {name}: there is no {}", row.doc);
    }
}

#[test]
fn every_category_is_implemented_specified_or_out_of_scope() {
    let matrix = matrix();
    let categories: BTreeSet<&str> = matrix.survey.iter().map(|c| c.category.as_str()).collect();
    assert_eq!(categories.len(), matrix.survey.len(), "{MATRIX}: a category is there twice");
    for (table, name, row) in matrix.rows() {
        for category in row.also.iter().chain([&row.category]) {
            assert!(categories.contains(&**category), "{MATRIX}: [{table}] {name}: no category {category}");
        }
    }
    for c in &matrix.survey {
        let implemented = matrix.rows().any(|(_, _, row)| row.covers(&c.category));
        assert!(implemented || c.spec.is_some() || c.out.is_some(), "{MATRIX}: nothing is said of {}", c.category);
        assert!(!implemented || c.out.is_none(), "{MATRIX}: {} is out of scope and implemented", c.category);
    }
}

#[test]
fn a_missing_test_is_noticed() {
    let source = "#[test]\nfn here() {}\nfn helper() {}\n#[kernel_test]\nfn everywhere() {}\nproptest! {\n    /// Why.\n    #[test]\n    fn random(x in 0..3) {}\n}";
    assert!(["here", "random", "everywhere"].iter().all(|name| has_test(source, name)));
    assert!(!has_test(source, "helper") && !has_test(source, "her") && !has_test(source, "gone"));
}

fn render(matrix: &Matrix) -> String {
    let mut page = "# Methods\n\nWhat tersor covers of the taxonomy of model compression (categories after \"A Survey on Model Compression for Large \
                    Language Models\", [arXiv 2308.07633](https://arxiv.org/abs/2308.07633), and what concerns an engine). \
                    This page is rendered from [features.toml](features.toml) by `tests/tests/feature_matrix.rs`, which fails \
                    if a registered codec or kernel is missing or its test or document does not exist.\n\n\
                    | category | what | where it stands |\n| --- | --- | --- |\n"
        .to_owned();
    for c in &matrix.survey {
        let names: Vec<String> =
            matrix.rows().filter(|(_, _, row)| row.covers(&c.category)).map(|(_, n, _)| format!("`{n}`")).collect();
        let mut state = Vec::new();
        if !names.is_empty() {
            state.push(format!("implemented: {}", names.join(", ")));
        }
        state.extend(
            c.spec.iter().map(|spec| format!("{}: {spec}", if names.is_empty() { "specified" } else { "see also" })),
        );
        state.extend(c.out.iter().map(|out| format!("out of scope: {out}")));
        writeln!(page, "| {} | {} | {} |", c.title, c.what, state.join("; ")).unwrap();
    }
    for (table, title) in [
        ("codecs", "Codecs"),
        ("additions", "Additions (`codec+…`)"),
        ("wrappers", "Wrappers (`…:codec`)"),
        ("stages", "Stages (`…+codec`, before any codec)"),
        ("kernels", "Kernels"),
    ] {
        let rows: Vec<_> = matrix.rows().filter(|(of, _, _)| *of == table).collect();
        if rows.is_empty() {
            continue;
        }
        write!(page, "\n## {title}\n\n| name | document | tests |\n| --- | --- | --- |\n").unwrap();
        for (_, name, row) in rows {
            let tests: Vec<String> = row
                .tests
                .iter()
                .filter_map(|test| test.split_once("::"))
                .map(|(file, test)| format!("[{test}](../../{file})"))
                .collect();
            let doc = row.doc.strip_prefix("docs/methods/").map_or_else(|| format!("../../{}", row.doc), str::to_owned);
            writeln!(page, "| `{name}` | [{}]({doc}) | {} |", row.doc, tests.join(", ")).unwrap();
        }
    }
    page
}

#[test]
fn the_page_is_what_the_matrix_renders_to() {
    let page = render(&matrix());
    let path = root().join(PAGE);
    if std::env::var_os("TERSOR_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == page,
        "{PAGE} is not what {MATRIX} renders to: TERSOR_BLESS=1 cargo test -p tersor-tests --test feature_matrix"
    );
}
