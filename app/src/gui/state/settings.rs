//! What is kept from one start to the next.

use serde::{Deserialize, Serialize};

use super::Origin;

/// What is kept from one start to the next.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Light, dark, or what the system has.
    pub theme: eframe::egui::ThemePreference,
    /// The compressions that stand beside the original.
    pub recipes: Vec<String>,
    /// What is continued.
    pub prompt: String,
    /// Without the model's chat template.
    pub raw: bool,
    /// Compressions judge the original's text instead of writing their own.
    pub forced: bool,
    /// At most this many tokens.
    pub tokens: u32,
    /// 0 is greedy.
    pub temperature: f32,
    /// Draw from the most likely tokens that together reach this probability.
    pub top_p: f32,
    /// Draw from the k most likely tokens; 0 is all.
    pub top_k: u32,
    /// Of the random numbers.
    pub seed: u64,
    /// Change of basis before compressing.
    pub rotate: bool,
    /// Windows of the text that quality is measured on.
    pub windows: u32,
    /// Tokens of a window.
    pub context: u32,
    /// Models opened lately, the last one first.
    pub recent: Vec<Origin>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            theme: eframe::egui::ThemePreference::System,
            recipes: vec!["q4_k".to_owned()],
            prompt: "It is a truth universally acknowledged, that a".to_owned(),
            raw: false,
            forced: false,
            tokens: 96,
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            seed: 1,
            rotate: false,
            windows: 2,
            context: 256,
            recent: Vec::new(),
        }
    }
}

/// Seed of the rotation, which is a means and no matter of taste.
pub const ROTATION: u64 = 1;
