//! Evaluation: what a compression costs, in the numbers people trust.
//!
//! In: per-position records that the GPU made of logits ([`crate::ops::metrics`]), and embeddings. Out: statistics with their
//! errors. The functions here are pure; windows are merged by concatenating their records.

mod retrieval;
mod statistics;

pub use retrieval::{EmbeddingDrift, cosine, embedding_drift, rank_correlation, recall_at, top};
pub use statistics::{ComparisonStatistics, Estimate, EvalError, Perplexity, compare, perplexity, quantile};
