//! Layers whose weights are expanded to bf16 before they are used ([`Stream`]), because no kernel multiplies by them as they are.
//!
//! Two ways. A layer may expand its weights itself, a window after the other, into two buffers of the pool that take turns: any
//! matrix can be used like this, and little memory is taken. Or its weights are expanded ahead, into buffers that the caller keeps
//! and fills ([`Filling`]): the layer is then an ordinary bf16 one that has no weights of its own.

use std::ops::Range;
use std::sync::Arc;

use super::{Chunk, Decision, Epilogue, Linear, Rows, binding_limit, forward_with};
use crate::codec::{CodecRef, RUN};
use crate::gpu::{Buffer, Gpu, Recorder};
use crate::ops::OpsError;
use crate::ops::dfloat11::Stream;

/// Bytes of expanded weights that a layer uses at a time when it expands them itself: enough to fill a GPU, little beside a model.
pub const WINDOW: u64 = 16 << 20;

/// Rows that lie behind one another in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Number of the first weight.
    pub first: u32,
    pub rows: u32,
}

/// Weights to expand, and at which word of a buffer they go.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fill {
    weights: Range<u32>,
    at: u32,
}

/// A buffer of a layer's weights and what has to be expanded into it.
#[derive(Clone, Debug)]
pub struct Filling {
    buffer: Buffer,
    fills: Vec<Fill>,
}

impl Filling {
    /// Records the expansion.
    ///
    /// # Errors
    /// What the device refuses.
    pub fn record(&self, rec: &mut Recorder, stream: &Stream) -> Result<(), OpsError> {
        for fill in &self.fills {
            stream.expand(rec, fill.weights.clone(), &self.buffer.all(), fill.at)?;
        }
        Ok(())
    }
}

/// Where the weights of a layer are that expands them itself.
#[derive(Clone, Debug)]
pub(super) struct Expanded {
    stream: Arc<Stream>,
    spans: Vec<Span>,
}

/// What is said of a matrix whose rows are spans of a stream.
pub struct Spans<'a> {
    pub label: &'a str,
    /// Of the expanded weights: bf16.
    pub codec: &'a CodecRef,
    pub spans: &'a [Span],
    pub cols: u32,
    /// The first half of the rows are gates.
    pub gated: bool,
}

impl Spans<'_> {
    fn outputs(&self) -> u32 {
        let rows: u32 = self.spans.iter().map(|span| span.rows).sum();
        if self.gated { rows / 2 } else { rows }
    }

    /// Bytes of an output's weights.
    fn output_bytes(&self) -> u64 {
        2 * u64::from(self.cols) * if self.gated { 2 } else { 1 }
    }

    /// Outputs of which no part's weights take more than `limit` bytes.
    fn parts(&self, limit: u64) -> Result<Vec<Range<u32>>, OpsError> {
        let fail = |what: &str| OpsError::shape("linear", format!("{}: {what}", self.label));
        let outputs = self.outputs();
        if outputs == 0 || self.cols == 0 || !(self.cols as usize).is_multiple_of(RUN) {
            return Err(fail(&format!("{outputs} outputs of {} weights cannot be expanded", self.cols)));
        }
        let step = (limit / self.output_bytes()).min(outputs.into()) as u32;
        if step == 0 {
            return Err(fail(&format!("a row is more than {limit} bytes")));
        }
        Ok((0..outputs).step_by(step as usize).map(|start| start..outputs.min(start.saturating_add(step))).collect())
    }

    /// What makes the weights of some of the outputs, from the start of a buffer on.
    fn fills(&self, outputs: &Range<u32>) -> Vec<Fill> {
        let mut fills: Vec<Fill> = Vec::new();
        let mut at = 0;
        let halves: &[u32] = if self.gated { &[0, self.outputs()] } else { &[0] };
        for half in halves {
            let wanted = half + outputs.start..half + outputs.end;
            let mut row = 0;
            for span in self.spans {
                let rows = wanted.start.clamp(row, row + span.rows) - row..wanted.end.clamp(row, row + span.rows) - row;
                row += span.rows;
                let weights = span.first + rows.start * self.cols..span.first + rows.end * self.cols;
                let words = (weights.end - weights.start) / 2;
                match fills.last_mut() {
                    _ if words == 0 => {}
                    Some(last) if last.weights.end == weights.start => last.weights.end = weights.end,
                    _ => fills.push(Fill { weights, at }),
                }
                at += words;
            }
        }
        fills
    }

    fn linear(&self, chunks: Vec<Chunk>, bytes: u64, expanded: Option<Expanded>) -> Linear {
        Linear {
            label: self.label.into(),
            codec: self.codec.clone(),
            outputs: self.outputs(),
            cols: self.cols,
            gated: self.gated,
            chunks: chunks.into(),
            sparsity: None,
            low_rank: None,
            expanded,
            bytes,
            kernels: Default::default(),
            tuned: Default::default(),
        }
    }
}

impl Linear {
    /// A layer that expands its weights itself whenever it is used. Its bytes are the stream's.
    ///
    /// # Errors
    /// Rows that are no whole runs, or too long for a binding.
    pub fn expanding(gpu: &Gpu, spans: &Spans, stream: &Arc<Stream>) -> Result<Self, OpsError> {
        let parts = spans.parts(binding_limit(gpu).min(WINDOW.max(spans.output_bytes())))?;
        let chunk = |outputs: Range<u32>| {
            let (output0, outputs) = (outputs.start, outputs.end - outputs.start);
            Chunk { output0, outputs, planes: Vec::new(), factor: None }
        };
        let expanded = Expanded { stream: stream.clone(), spans: spans.spans.to_vec() };
        Ok(spans.linear(parts.into_iter().map(chunk).collect(), stream.bytes(), Some(expanded)))
    }

    /// A layer whose weights have to be in buffers before it is used, and how they get there. `buffer` gives the buffer for a part of
    /// it, by its number and bytes. The layer's own bytes are none.
    ///
    /// # Errors
    /// As [`Linear::expanding`], and of `buffer`.
    pub fn expanded_ahead(
        gpu: &Gpu,
        spans: &Spans,
        mut buffer: impl FnMut(usize, u64) -> Result<Buffer, OpsError>,
    ) -> Result<(Self, Vec<Filling>), OpsError> {
        let (mut chunks, mut fillings) = (Vec::new(), Vec::new());
        for (number, outputs) in spans.parts(binding_limit(gpu))?.into_iter().enumerate() {
            let count = outputs.end - outputs.start;
            let buffer = buffer(number, u64::from(count) * spans.output_bytes())?;
            fillings.push(Filling { buffer: buffer.clone(), fills: spans.fills(&outputs) });
            chunks.push(Chunk { output0: outputs.start, outputs: count, planes: vec![buffer], factor: None });
        }
        Ok((spans.linear(chunks, 0, None), fillings))
    }

    fn spans<'a>(&'a self, expanded: &'a Expanded) -> Spans<'a> {
        let (label, codec, spans) = (&self.label, &self.codec, &expanded.spans);
        Spans { label, codec, spans, cols: self.cols, gated: self.gated }
    }
}

impl Expanded {
    /// The stream of a table whose rows are all of it.
    pub(super) fn table(&self) -> Option<&Stream> {
        matches!(self.spans[..], [Span { first: 0, .. }]).then_some(&*self.stream)
    }

    /// [`forward_with`] for a layer that expands its weights itself: every window once, for all tokens. While a product reads one of
    /// two buffers, the next window may be expanded into the other.
    pub(super) fn forward(
        &self,
        rec: &mut Recorder,
        decision: Decision,
        linear: &Linear,
        tokens: u32,
        x: Rows,
        y: Rows,
        epilogue: &Epilogue,
    ) -> Result<(), OpsError> {
        let spans = linear.spans(self);
        let mut last: Option<Buffer> = None;
        for chunk in &*linear.chunks {
            // The last one is held until here, so that the pool gives another.
            let buffer = rec.gpu().scratch("expanded weights", u64::from(chunk.outputs) * spans.output_bytes())?;
            let fills = spans.fills(&(chunk.output0..chunk.output0 + chunk.outputs));
            Filling { buffer: buffer.clone(), fills }.record(rec, &self.stream)?;
            let window = Chunk { planes: vec![buffer.clone()], factor: None, ..*chunk };
            forward_with(rec, decision, &spans.linear(vec![window], 0, None), tokens, x, y, epilogue)?;
            last = Some(buffer);
        }
        drop(last);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::parse;

    #[test]
    fn parts_are_filled_from_the_spans_they_touch() {
        let codec = parse("bf16").unwrap();
        let list = [Span { first: 0, rows: 4 }, Span { first: 128, rows: 2 }, Span { first: 640, rows: 6 }];
        let plain = Spans { label: "w", codec: &codec, spans: &list, cols: 32, gated: false };
        let fill = |weights, at| Fill { weights, at };
        assert_eq!(plain.outputs(), 12);
        assert_eq!(plain.fills(&(0..12)), [fill(0..192, 0), fill(640..832, 96)], "neighbours at once");
        assert_eq!(plain.fills(&(5..7)), [fill(160..192, 0), fill(640..672, 16)]);
        let gated = Spans { gated: true, ..plain };
        assert_eq!(gated.outputs(), 6);
        assert_eq!(gated.fills(&(0..6)), [fill(0..192, 0), fill(640..832, 96)]);
        assert_eq!(gated.fills(&(1..3)), [fill(32..96, 0), fill(672..736, 32)], "gate rows, then up rows");
        assert_eq!(gated.parts(3 * 128).unwrap(), [0..3, 3..6]);
        assert!(gated.parts(127).is_err());
    }
}
