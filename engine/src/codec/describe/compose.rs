//! Recipes taken apart and put together again: what comes before a codec, around it, inside and behind it.
//!
//! In: a spelling. Out: its [parts](Composition), each a described [`Method`] with values for its parameters. A form changes one of
//! them and asks for the [spelling](Composition::spelling) of the whole; whether that is possible, [`Recipe::parse`] says.

use super::super::Recipe;
use super::super::spec::names;
use super::{ADDITIONS, DESCRIBED, Family, Method, STAGES, WRAPPERS};

/// A method with a value for each of its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The method.
    pub method: Method,
    /// Values, in the order of its parameters.
    pub values: Vec<String>,
}

impl Part {
    /// The method as it is when nobody chooses.
    pub fn new(method: Method) -> Self {
        Self { method, values: method.parameters.iter().map(|p| p.default().to_owned()).collect() }
    }

    fn read(methods: &[Method], segment: &str) -> Option<Self> {
        methods.iter().find_map(|method| Some(Self { method: *method, values: method.values(segment)? }))
    }

    fn spelling(&self) -> String {
        self.method.spelling(&self.values)
    }
}

/// Where a part stands in a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Before any codec: changes the model's shapes.
    Stage,
    /// Around the codec.
    Wrapper,
    /// Behind a sparse codec: how its kept weights are stored.
    Values,
    /// Behind a codec: on top of it.
    Addition,
}

impl Place {
    /// All places, in the order of a spelling.
    pub const ALL: [Self; 4] = [Self::Stage, Self::Wrapper, Self::Values, Self::Addition];

    /// What it is for, in a few words.
    pub fn what(self) -> &'static str {
        match self {
            Self::Stage => "first, on the whole model",
            Self::Wrapper => "code what it stores",
            Self::Values => "store kept weights as",
            Self::Addition => "add a correction",
        }
    }

    /// What can stand here.
    pub fn methods(self) -> Vec<Method> {
        let names = names();
        match self {
            Self::Stage => described(&names.stages, STAGES),
            Self::Wrapper => described(&names.wrappers, WRAPPERS),
            Self::Addition => described(&names.additions, ADDITIONS),
            Self::Values => described(&names.codecs, DESCRIBED),
        }
    }
}

/// The registered methods with what is said of them; by name alone where nobody described one.
pub(super) fn described(names: &[&'static str], known: &[Method]) -> Vec<Method> {
    let one = |name: &&'static str| {
        let unknown = Method { name, family: Family::Other, what: "", parameters: &[] };
        known.iter().find(|method| method.name == *name).copied().unwrap_or(unknown)
    };
    names.iter().map(one).collect()
}

/// A recipe in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composition {
    /// What packs the weights.
    pub codec: Part,
    /// What else there is: of [`Place::ALL`], in that order.
    others: [Option<Part>; 4],
}

impl Composition {
    /// A codec alone.
    pub fn new(codec: Part) -> Self {
        Self { codec, others: [None, None, None, None] }
    }

    /// Takes a spelling apart; `None` for one with parts that nobody described, or twice the same.
    pub fn read(spelling: &str) -> Option<Self> {
        let spelling = spelling.trim().to_ascii_lowercase();
        let mut rest: Vec<&str> = spelling.split('+').map(str::trim).collect();
        let mut others = [None, None, None, None];
        let name = |segment: &str| segment.split(':').next().unwrap_or_default().trim().to_owned();
        let [stages, wrappers, values, additions] = Place::ALL.map(Place::methods);
        let of = |methods: &[Method], segment: &str| methods.iter().any(|method| method.name == name(segment));
        if of(&stages, rest[0]) {
            others[0] = Some(Part::read(&stages, rest.remove(0))?);
        }
        let mut codec = *rest.first()?;
        if of(&wrappers, codec) {
            let (wrapper, inner) = codec.split_once(':')?;
            others[1] = Some(Part::read(&wrappers, wrapper)?);
            codec = inner.trim();
        }
        for segment in &rest[1..] {
            let (at, part) = match Part::read(&additions, segment) {
                Some(part) => (3, part),
                None => (2, Part::read(&values, segment)?),
            };
            // What stores the kept weights comes first, and there is one of each.
            if others[at..].iter().any(Option::is_some) {
                return None;
            }
            others[at] = Some(part);
        }
        Some(Self { codec: Part::read(&values, codec)?, others })
    }

    /// What stands at a place.
    pub fn part(&self, place: Place) -> Option<&Part> {
        self.others[place as usize].as_ref()
    }

    /// The same with something else at a place.
    #[must_use]
    pub fn with(mut self, place: Place, part: Option<Part>) -> Self {
        self.others[place as usize] = part;
        self
    }

    /// The recipe.
    pub fn spelling(&self) -> String {
        let [stage, wrapper, values, addition] = &self.others;
        let before = stage.as_ref().map_or(String::new(), |part| format!("{}+", part.spelling()));
        let around = wrapper.as_ref().map_or(String::new(), |part| format!("{}:", part.spelling()));
        let behind = [values, addition].into_iter().flatten().map(|part| format!("+{}", part.spelling()));
        format!("{before}{around}{}{}", self.codec.spelling(), behind.collect::<String>())
    }

    /// Why the recipe cannot be, if it cannot.
    pub fn refusal(&self) -> Option<String> {
        Recipe::parse(&self.spelling()).err().map(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipes_come_apart_and_together() {
        for spelling in [
            "q4_k",
            "uniform:bits=3,zero",
            "sparse:2:4+q4_k",
            "sparse:50%,method=wanda+q4_k+eora:rank=64",
            "prune:ffn=25+entropy:uniform:bits=4",
            "modegpt:ratio=20+q8_0+svd:rank=64",
            "entropy:bf16",
            "svd:ratio=50",
            "spqr:outliers=1,bits=4",
        ] {
            let found = Composition::read(spelling).unwrap_or_else(|| panic!("{spelling}"));
            let name = |text: &str| Recipe::parse(text).unwrap().name().to_owned();
            assert_eq!(name(&found.spelling()), name(spelling));
            assert_eq!(found.refusal(), None);
        }
        let parts = Composition::read("prune:ffn=25+sparse:2:4+q4_k+eora:rank=32").unwrap();
        let names = Place::ALL.map(|place| parts.part(place).map(|part| part.method.name));
        assert_eq!((names, parts.codec.method.name), ([Some("prune"), None, Some("q4_k"), Some("eora")], "sparse"));
        for spelling in ["q4k", "", "q4_k+", "q4_k+eora:rank=8+q8_0", "sparse:2:4+q4_k+q8_0"] {
            assert_eq!(Composition::read(spelling), None, "{spelling}");
        }
    }

    #[test]
    fn everything_that_is_registered_can_be_put_together_somewhere() {
        let base = |name: &str| Composition::read(name).unwrap();
        for place in Place::ALL {
            for method in place.methods() {
                if place == Place::Values {
                    continue; // every codec is one, and few can store what another kept
                }
                assert!(!method.what.is_empty(), "{} is described", method.name);
                let whole = base("q4_k").with(place, Some(Part::new(method)));
                assert_eq!(whole.refusal(), None, "{}", whole.spelling());
                assert_eq!(Composition::read(&whole.spelling()), Some(whole));
            }
        }
        let impossible = base("q2_k").with(Place::Wrapper, Some(Part::new(Place::Wrapper.methods()[0])));
        assert!(impossible.refusal().unwrap().contains("no integer codes"));
        let impossible = base("q4_k").with(Place::Values, Some(Part::new(base("q8_0").codec.method)));
        assert!(impossible.refusal().is_some());
    }
}
