//! What a person asks for, and what is said to them.

use tersor_engine::session::Slot;

use super::{Form, Origin, Tab, Trade};

/// What a person asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Show a page.
    Show(Tab),
    /// Get a model of the manifest and open it.
    Fetch(String),
    /// Open a model.
    Open(Origin),
    /// Choose a file.
    Pick,
    /// Choose another's report, to lay it beside what was measured.
    PickReport,
    /// Take the report of this number away again.
    TakeAway(usize),
    /// Put another compression beside the original.
    Add(String),
    /// Delete a model that the browser keeps.
    Forget(String),
    /// Take a column away.
    Remove(Slot),
    /// Compress a column otherwise.
    Change(Slot, String),
    /// Change of basis on or off.
    Rotate(bool),
    /// Let all columns write.
    Run,
    /// Measure the columns on a text.
    Measure,
    /// Measure the kernels.
    Bench,
    /// Ask where heads look.
    Attend,
    /// Show a tensor.
    Tensor(String),
    /// Show a tensor on its page.
    Examine(String),
    /// Plot something else against each other.
    Trade(Trade),
    /// Show the errors of this compression.
    Choose(String),
    /// Save what the page shows.
    Export(Form),
    /// Stop what is being done.
    Stop,
    /// The message is read.
    Dismiss,
}

/// A message: what went wrong, and what helps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// For people.
    pub text: String,
    /// What the button beside it does.
    pub remedy: Option<(&'static str, Remedy)>,
}

/// What helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Load the models again and run.
    Run,
    /// Choose a file.
    Pick,
    /// Measure the kernels.
    Bench,
}
