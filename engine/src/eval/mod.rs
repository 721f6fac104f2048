//! Evaluation: what a compression costs, in the numbers people trust.
//!
//! In: per-position records that the GPU made of logits ([`crate::ops::metrics`]), and embeddings. Out: statistics with their
//! errors. [`likelihoods`] and [`Original`] send a text's windows through models; statistics are pure functions of the records,
//! and windows are merged by concatenating those.

mod drive;
mod influence;
mod retrieval;
mod statistics;

pub(crate) use drive::rows_at_once;
pub use drive::{Original, Windows, likelihoods};
pub use influence::influence;
pub use retrieval::{EmbeddingDrift, cosine, embedding_drift, rank_correlation, recall_at, top};
pub use statistics::{ComparisonStatistics, Estimate, EvalError, Perplexity, compare, perplexity, quantile};
