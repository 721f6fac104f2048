//! What can go wrong between weights, recipes and packed planes.

use crate::format::Dtype;

/// Errors of the codec room. Messages name the codec and, where there is one, the row and column.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CodecError {
    #[error("unknown codec `{name}`{}; valid codecs: {valid}", near.map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default())]
    UnknownCodec { name: String, near: Option<&'static str>, valid: String },
    #[error("{codec}: unknown option `{option}`; valid options: {valid}")]
    UnknownOption { codec: String, option: String, valid: String },
    #[error("{codec}: `{value}` is no valid {option}; valid: {valid}")]
    OptionValue { codec: String, option: String, value: String, valid: String },
    #[error("{codec}: option `{option}` is given twice")]
    RepeatedOption { codec: String, option: String },
    #[error("{codec}: option `{option}` is missing; valid: {valid}")]
    MissingOption { codec: String, option: String, valid: String },
    #[error("{codec}: {len} weights are not a matrix of {rows} x {cols}")]
    Shape { codec: String, len: usize, rows: usize, cols: usize },
    #[error("{codec}: rows of {cols} weights cannot be cut into blocks of {block}")]
    Columns { codec: String, cols: usize, block: usize },
    #[error("{codec}: weight [{row}, {col}] is {value}: only finite numbers can be packed")]
    NonFinite { codec: String, row: usize, col: usize, value: f32 },
    #[error("{codec}: weight [{row}, {col}] = {value:e} is too large for its scale format")]
    TooLarge { codec: String, row: usize, col: usize, value: f32 },
    #[error("{codec}: rows of {cols} weights are too long, {most} is the most")]
    TooWide { codec: String, cols: usize, most: usize },
    #[error("{codec}: {found} bytes where {rows} x {cols} weights take {expected}")]
    Bytes { codec: String, rows: usize, cols: usize, expected: usize, found: usize },
    #[error("{codec}: plane {plane} does not have the layout of {rows} x {cols} weights")]
    Layout { codec: String, plane: usize, rows: usize, cols: usize },
    #[error("{codec}: plane {plane}: {what}")]
    Content { codec: String, plane: usize, what: String },
    #[error("calibration: {what}")]
    Calibration { what: String },
    #[error("{codec}: it needs a calibration text; name one with --calibrate FILE")]
    Uncalibrated { codec: String },
    #[error("`{left}` and `{right}` cannot be combined: {why}")]
    Combination { left: String, right: String, why: String },
    #[error("{codec}: rows {start}..{end} of {rows}: must lie inside and start at a multiple of {granularity}")]
    RowRange { codec: String, start: usize, end: usize, rows: usize, granularity: usize },
    #[error("{codec}: this format can be read but not written; choose another codec")]
    ReadOnly { codec: String },
    #[error("{codec}: its packed weights are of no type that model files have")]
    NoFileType { codec: String },
    #[error("tensor `{tensor}`: weights of type {dtype} cannot be used; convert them to a float type first")]
    Dtype { tensor: String, dtype: Dtype },
    #[error("{recipe}:{line}: {}{message}", pattern.as_ref().map(|pattern| format!("pattern `{pattern}`: ")).unwrap_or_default())]
    Recipe { recipe: String, line: usize, pattern: Option<String>, message: String },
    #[error("{file}: {message}; the file is damaged or of another version: compress the model again")]
    Stored { file: String, message: String },
    #[error("tensor `{tensor}`: shape {shape:?} is too large for this machine")]
    Size { tensor: String, shape: Vec<u64> },
}

impl CodecError {
    /// What went wrong in rows that have `first` others before them.
    pub(super) fn below(mut self, first: usize) -> Self {
        if let Self::NonFinite { row, .. } | Self::TooLarge { row, .. } = &mut self {
            *row += first;
        }
        self
    }
}
