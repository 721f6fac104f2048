//! `Attend`: which blocks of keys a prompt's queries see in one layer, under a policy of block-sparse attention.

use serde::{Deserialize, Serialize};

use super::command::Attend;
use super::failure::fail;
use super::language::{Language, read_policy};
use super::report::AttentionUse;
use super::runner::Interruption;
use crate::gpu::Purpose;
use crate::model::{AttentionPolicy, ModelError};
use crate::progress::{Monitor, Unit};

/// Of `Attend`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attended {
    /// The layer.
    pub layer: u32,
    /// Layers of the model.
    pub layers: u32,
    /// Query heads of a layer.
    pub heads: u32,
    /// Tokens of the prompt that were looked at.
    pub tokens: u32,
    /// Tokens of a block.
    pub block: u32,
    /// A row for every block of queries, in the order of the prompt.
    pub rows: Vec<AttendedRow>,
    /// What part of the attention was computed, over all layers and heads.
    pub attention: AttentionUse,
}

/// A block of queries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttendedRow {
    /// Position of the first query.
    pub position: u32,
    /// Queries.
    pub tokens: u32,
    /// The first and one past the last key block that dense attention would compute.
    pub visible: [u32; 2],
    /// Those of them that are kept, by head, in rising order.
    pub kept: Vec<Vec<u32>>,
}

/// Carries the command out. The model keeps the attention, and forgets the text.
pub(super) async fn attend(
    model: &mut Language,
    command: &Attend,
    monitor: &Monitor,
) -> Result<Attended, Interruption> {
    let policy = read_policy(Some(&command.attention))?;
    let block = match policy {
        AttentionPolicy::Dense => return Err(fail("dense attention leaves no block out: name window or asa")),
        AttentionPolicy::Window { block, .. } | AttentionPolicy::Adaptive { block, .. } => block,
    };
    let (layers, heads) = (model.decoder.config().layers, model.decoder.config().heads);
    if command.layer >= layers {
        return Err(fail(format!("there is no layer {}: the model has {layers}, counted from 0", command.layer)));
    }
    let mut ids = model.prompt(&command.input)?;
    ids.truncate(command.tokens.min(model.context()) as usize);
    if ids.len() < 2 {
        return Err(ModelError::EmptyPrompt.into());
    }
    model.decoder.check_tokens(&ids)?;
    model.set_attention(policy).await?;
    model.attention_use().await?; // what was counted before is not of this prompt
    model.decoder.watch_blocks(Some(command.layer as usize));
    let rows = run(model, &ids, monitor).await;
    model.decoder.watch_blocks(None);
    model.forget();
    let rows = rows?;
    let attention = model.attention_use().await?.ok_or_else(|| fail("nothing was counted"))?;
    Ok(Attended { layer: command.layer, layers, heads, tokens: ids.len() as u32, block, rows, attention })
}

async fn run(model: &mut Language, ids: &[u32], monitor: &Monitor) -> Result<Vec<AttendedRow>, Interruption> {
    model.forget();
    let gpu = model.decoder.gpu().clone();
    let buffer = gpu.storage("token ids", 4 * ids.len() as u64, Purpose::Activations)?;
    gpu.write(&buffer, 0, ids);
    let (total, mut rows, mut start) = (ids.len() as u32, Vec::new(), 0);
    while start < total {
        monitor.step("reading the prompt", start.into(), total.into(), Unit::Tokens)?;
        let count = model.chunk().min(total - start);
        let mut rec = gpu.record();
        model.extend(&mut rec, &buffer, start, count)?;
        rec.submit()?;
        gpu.idle().await?;
        let found = model.decoder.watched_blocks().await?;
        rows.extend(found.into_iter().map(|row| AttendedRow {
            position: row.position,
            tokens: row.tokens,
            visible: [row.visible.start, row.visible.end],
            kept: row.kept,
        }));
        start += count;
    }
    Ok(rows)
}
