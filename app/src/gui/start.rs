//! What the app shows and does first: from the command line natively, from the part of the address behind `#` in a browser.
//!
//! `tersor app tiny --with q4_k nf4 --prompt "It is" --run` and `#model=tiny&with=q4_k&with=nf4&prompt=It+is&run` are the same.

use super::state::Tab;

/// A wish list; everything that is `None` stays as it was left.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Start {
    /// A model of the manifest, or natively a file.
    pub model: Option<String>,
    /// Recipes to compare with the original.
    pub recipes: Vec<String>,
    /// What to continue.
    pub prompt: Option<String>,
    /// Tokens to write.
    pub tokens: Option<u32>,
    /// Seed of the random numbers.
    pub seed: Option<u64>,
    /// Temperature.
    pub temperature: Option<f32>,
    /// The page to show.
    pub tab: Option<Tab>,
    /// Light or dark.
    pub dark: Option<bool>,
    /// Begin at once: to write, or on the quality page to measure.
    pub run: bool,
}

impl Start {
    /// Reads what stands behind `#`: names and values like those of a web form. What is not understood is left out.
    pub fn from_fragment(fragment: &str) -> Self {
        let mut start = Self::default();
        for (name, value) in form_urlencoded::parse(fragment.trim_start_matches('#').as_bytes()) {
            let value = value.into_owned();
            match name.as_ref() {
                "model" if !value.is_empty() => start.model = Some(value),
                "with" if !value.is_empty() => start.recipes.push(value),
                "prompt" => start.prompt = Some(value),
                "tokens" => start.tokens = value.parse().ok(),
                "seed" => start.seed = value.parse().ok(),
                "temperature" => start.temperature = value.parse().ok().filter(|t: &f32| t.is_finite() && *t >= 0.0),
                "tab" => start.tab = Tab::parse(&value),
                "theme" => start.dark = Some(value == "dark"),
                "run" => start.run = true,
                _ => {}
            }
        }
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_what_to_do() {
        let start =
            Start::from_fragment("#model=tiny&with=q4_k&with=uniform:bits=3,group=64&prompt=It+is%20%C3%A9&seed=7&run");
        assert_eq!(start.model.as_deref(), Some("tiny"));
        assert_eq!(start.recipes, ["q4_k", "uniform:bits=3,group=64"]);
        assert_eq!(start.prompt.as_deref(), Some("It is é"));
        assert_eq!((start.seed, start.run, start.tokens), (Some(7), true, None));
    }

    #[test]
    fn nonsense_is_left_out() {
        let start = Start::from_fragment("#tokens=many&temperature=-1&what=ever&prompt=100%&tab=none");
        assert_eq!(start, Start { prompt: Some("100%".into()), ..Start::default() });
        assert_eq!(Start::from_fragment(""), Start::default());
    }
}
