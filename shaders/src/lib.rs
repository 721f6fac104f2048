//! Every WGSL kernel of tersor.
//!
//! The kernels live under `wgsl/<family>/<kernel>.wgsl`; [`compose`] puts one together with its imports for one set of
//! options. The build script has composed and validated *every* permutation that can be asked for, so composing cannot
//! produce an invalid shader, and it has reflected what the host needs: [`KernelInfo`]. The directives are described in
//! [`compose`](mod@compose).

pub mod compose;
mod key;

pub use compose::{ComposeError, Value as OptionValue};
use compose::{Options, Sources, Value};

/// How a kernel uses a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingKind {
    ReadStorage,
    WriteStorage,
    Uniform,
}

/// One binding, as reflected from the WGSL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    pub name: &'static str,
    pub group: u32,
    pub binding: u32,
    pub kind: BindingKind,
    /// Bytes: of the whole struct for a uniform, of one element for a runtime-sized array.
    pub size: u32,
}

/// What the host must know of one permutation, as reflected from the WGSL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelInfo {
    pub workgroup_size: [u32; 3],
    /// Workgroup memory, bytes.
    pub workgroup_bytes: u32,
    /// Needs the `f16` feature.
    pub f16: bool,
    /// Needs subgroup operations.
    pub subgroup: bool,
    /// Names of WGSL `override` constants that may be set when the pipeline is made.
    pub overrides: &'static [&'static str],
    /// Sorted by group, then binding.
    pub bindings: &'static [Binding],
}

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

struct Embedded;

impl Sources for Embedded {
    fn text(&self, module: &str) -> Option<&str> {
        SOURCES.binary_search_by(|s| s.0.cmp(module)).ok().map(|i| SOURCES[i].1)
    }
    fn codecs(&self) -> Vec<String> {
        SOURCES.iter().filter_map(|s| s.0.strip_prefix("codec/")).map(str::to_owned).collect()
    }
}

/// A shader ready for the device.
#[derive(Clone, Debug)]
pub struct Composed {
    /// WGSL.
    pub source: String,
    pub info: &'static KernelInfo,
    /// Values for the WGSL `override`s among the given options.
    pub constants: Vec<(&'static str, f64)>,
}

/// Composes `kernel` ("linear/matvec") with `options`. An option left out takes its default, the first value declared;
/// a name that is no option but a WGSL `override` of the kernel becomes a pipeline constant.
///
/// # Errors
/// If the kernel does not exist, declares no such option, value or override, or skips this combination.
pub fn compose(kernel: &str, options: &[(&str, Value)]) -> Result<Composed, ComposeError> {
    let codec = options.iter().find_map(|o| match o {
        ("CODEC", Value::Name(name)) => Some(name.as_str()),
        _ => None,
    });
    let declared = compose::declarations(&Embedded, kernel, codec)?.options;
    let (given, rest): (Vec<_>, Vec<_>) = options.iter().cloned().partition(|o| declared.iter().any(|d| d.name == o.0));
    let given: Options = given.into_iter().map(|(n, v)| (n.to_owned(), v)).collect();
    let complete = compose::complete(&Embedded, kernel, &given)?;
    let error = |message| ComposeError { module: kernel.to_owned(), line: 0, message };
    let at = PERMUTATIONS
        .binary_search_by_key(&key::key(kernel, &complete), |p| p.0)
        .map_err(|_| error(format!("this combination is never asked for (//:skip): {complete:?}")))?;
    let info = &INFOS[PERMUTATIONS[at].1 as usize];
    let mut constants = Vec::new();
    for (name, value) in rest {
        match (info.overrides.iter().find(|o| **o == name), value) {
            (Some(name), Value::Int(value)) => constants.push((*name, value as f64)),
            (Some(name), Value::Name(value)) => return Err(error(format!("override {name} is no name: {value}"))),
            (None, _) => return Err(error(format!("has neither an option nor an override {name}"))),
        }
    }
    let composition = compose::compose(&Embedded, kernel, &complete)?;
    Ok(Composed { source: composition.source, info, constants })
}

/// Names of all kernels and how many permutations each has.
pub fn kernels() -> &'static [(&'static str, usize)] {
    KERNELS
}

/// The options of every permutation of `kernel`: for tools that check the composed text (another shader compiler).
///
/// # Errors
/// If the kernel does not exist.
pub fn permutations(kernel: &str) -> Result<Vec<Options>, ComposeError> {
    compose::permutations(&Embedded, kernel)
}

#[cfg(test)]
mod tests {
    use super::compose::*;
    use std::collections::BTreeMap;

    struct Map(BTreeMap<&'static str, &'static str>);
    impl Sources for Map {
        fn text(&self, module: &str) -> Option<&str> {
            self.0.get(module).copied()
        }
        fn codecs(&self) -> Vec<String> {
            self.0.keys().filter_map(|m| m.strip_prefix("codec/")).map(str::to_owned).collect()
        }
    }

    fn sources() -> Map {
        Map(BTreeMap::from([
            ("codec/a", "//:option BITS = 2 4\nconst A = #{BITS};"),
            ("codec/b", "const B = 1;"),
            ("shared/x", "const X = 1;"),
            (
                "k",
                "//:import shared/x\n//:import shared/x\n//:import codec\n//:option CODEC = codec\n//:option WIDE = 0 1\n\
                 //:skip CODEC == b && WIDE\n//:require f16 if WIDE\n//:if WIDE && BITS == 4\nwide\n//:elif WIDE\nnarrow\n//:else\n\
                 none\n//:endif\n//:for I in 0..2+1\n//:for J in 0..I\n#{I}#{J * 2}\n//:end\n//:end",
            ),
        ]))
    }

    fn options(list: &[(&str, Value)]) -> Options {
        list.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect()
    }

    #[test]
    fn every_permutation_is_listed_once() {
        let all = permutations(&sources(), "k").unwrap();
        assert_eq!(all.len(), 5, "a × 2 bits × 2 widths, b × narrow: {all:?}");
    }

    #[test]
    fn an_option_that_a_codec_lacks_is_0_where_permutations_are_skipped() {
        let map = Map(BTreeMap::from([
            ("codec/a", "//:option CODED = 0 1"),
            ("codec/b", "const B = 1;"),
            ("k", "//:import codec\n//:option CODEC = codec\n//:option SPARSE = 0 1\n//:skip SPARSE && CODED"),
        ]));
        let all = permutations(&map, "k").unwrap();
        assert_eq!(all.len(), 3 + 2, "{all:?}");
        assert!(all.iter().all(|o| o.contains_key("CODED") == (o["CODEC"] == "a".into())), "{all:?}");
        let map = Map(BTreeMap::from([("codec/a", ""), ("k", "//:option CODEC = codec\n//:skip WIDE")]));
        assert!(permutations(&map, "k").unwrap_err().to_string().contains("unknown option WIDE"));
    }

    /// No codec is both: what is masked has no integer codes of its own to be coded.
    #[test]
    fn nothing_is_built_for_weights_that_are_sparse_and_entropy_coded() {
        let on = |options: &Options, name: &str| options.get(name) == Some(&1.into());
        let mut seen = [0, 0];
        for (kernel, count) in super::kernels() {
            let all = super::permutations(kernel).unwrap();
            assert_eq!(all.len(), *count, "{kernel}");
            for options in &all {
                let (sparse, coded) = (on(options, "SPARSE"), on(options, "CODED"));
                assert!(!(sparse && coded), "{kernel} {options:?}");
                seen[0] += usize::from(sparse);
                seen[1] += usize::from(coded);
            }
        }
        assert!(seen[0] > 100 && seen[1] > 100, "{seen:?}");
    }

    #[test]
    fn imports_conditions_and_loops_compose() {
        let o = complete(&sources(), "k", &options(&[("CODEC", "a".into()), ("WIDE", 1.into()), ("BITS", 4.into())]))
            .unwrap();
        let c = compose(&sources(), "k", &o).unwrap();
        assert_eq!(c.source, "enable f16;\nconst X = 1;\nconst A = 4;\nwide\n10\n20\n22\n");
        assert_eq!(c.origins[2], ("codec/a".to_owned(), 2));
        assert!(c.f16 && !c.subgroup);
    }

    #[test]
    fn unknown_options_and_values_are_refused() {
        let bad = complete(&sources(), "k", &options(&[("CODEC", "a".into()), ("BITS", 3.into())])).unwrap_err();
        assert!(bad.to_string().contains("none of: 2 4"), "{bad}");
        let bad = complete(&sources(), "k", &options(&[("CODEC", "b".into()), ("BITS", 4.into())])).unwrap_err();
        assert!(bad.to_string().contains("no option BITS"), "{bad}");
        assert!(complete(&sources(), "k", &options(&[])).unwrap_err().to_string().contains("CODEC must be given"));
    }

    #[test]
    fn broken_directives_name_their_line() {
        for (text, line) in
            [("//:if 1\n", 1), ("x\n//:endif", 2), ("//:for I in 0..2\nx", 1), ("#{N}", 1), ("//:frob", 1)]
        {
            let map = Map(BTreeMap::from([("k", text)]));
            let e = compose(&map, "k", &Options::new()).unwrap_err();
            assert_eq!((e.module.as_str(), e.line), ("k", line), "{text:?}: {e}");
        }
    }
}
