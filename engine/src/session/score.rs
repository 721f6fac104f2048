//! What two models say of the same text, token by token: divergence, and what each would have written.

use super::command::Score;
use super::language::Language;
use super::report::{Candidate, Scored, Scores};
use super::runner::Interruption;
use crate::eval::rows_at_once;
use crate::gpu::Purpose;
use crate::model::ModelError;
use crate::ops::linear::Rows;
use crate::ops::metrics::{self, COMPARE_WORDS, Matrix, Positions};
use crate::ops::sample::{Sampled, Sampler, Sampling};
use crate::progress::{Monitor, Unit};

/// Sends the input and the text through both models. Both then remember the same text.
pub(super) async fn score(
    original: &mut Language,
    other: &mut Language,
    command: &Score,
    monitor: &Monitor,
) -> Result<Scores, Interruption> {
    let prompt = original.prompt(&command.input)?;
    if prompt.is_empty() {
        return Err(ModelError::EmptyPrompt.into());
    }
    let ids = [prompt.as_slice(), &command.tokens].concat();
    let result = run(original, other, &ids, prompt.len() as u32, monitor).await;
    for model in [original, other] {
        model.forget(); // a failed run leaves positions that were never computed
    }
    result
}

async fn run(
    original: &mut Language,
    other: &mut Language,
    ids: &[u32],
    prompt: u32,
    monitor: &Monitor,
) -> Result<Scores, Interruption> {
    let mut scores = Scores { tokens: Vec::new() };
    let gpu = other.decoder.gpu().clone();
    let vocabularies = [&*original, &*other].map(|model| model.decoder.config().vocab);
    let [vocab, vocab_other] = vocabularies;
    if vocab != vocab_other {
        return Err(ModelError::Vocabulary { original: vocab, other: vocab_other }.into());
    }
    original.decoder.check_tokens(ids)?;
    let tokenizer = original.tokenizer.clone();
    let text = |token: u32| String::from_utf8_lossy(tokenizer.token_bytes(token)).into_owned();
    let candidates = |sampled: &Sampled| -> Vec<Candidate> {
        let one = |&(token, logprob): &(u32, f32)| Candidate {
            token,
            text: text(token),
            probability: f64::from(logprob).exp(),
        };
        sampled.best.iter().map(one).collect()
    };

    let mut models = [original, other];
    models.iter_mut().for_each(|model| model.forget());
    let chunk = models.iter().map(|model| model.chunk()).min().unwrap_or(1);
    let batch = rows_at_once(&gpu, vocab, chunk);
    let buffer = gpu.storage("token ids", 4 * ids.len() as u64, Purpose::Activations)?;
    gpu.write(&buffer, 0, ids);
    let row = 4 * u64::from(vocab) * u64::from(batch);
    let logits = [gpu.storage("logits", row, Purpose::Activations)?, gpu.storage("logits", row, Purpose::Activations)?];
    let samplers = [Sampler::new(&gpu, batch, 1)?, Sampler::new(&gpu, batch, 1)?];
    let records = gpu.storage("records", 4 * u64::from(COMPARE_WORDS * batch), Purpose::Activations)?;

    // The last token predicts nothing that is asked for.
    let end = ids.len() as u32 - 1;
    let mut start = 0;
    while start < end {
        monitor.step("comparing tokens", start.into(), end.into(), Unit::Tokens)?;
        let count = chunk.min(end - start);
        let mut rec = gpu.record();
        for model in &mut models {
            model.extend(&mut rec, &buffer, start, count)?;
        }
        rec.submit()?;
        gpu.idle().await?;
        // Row i of the chunk predicts token start + i + 1.
        let mut first = (prompt - 1).saturating_sub(start);
        while first < count {
            let rows = batch.min(count - first);
            let mut rec = gpu.record();
            for ((model, logits), sampler) in models.iter().zip(&logits).zip(&samplers) {
                model.logits(&mut rec, first, rows, Rows::new(logits, vocab))?;
                for row in 0..rows {
                    sampler.sample(&mut rec, &Sampling::default(), logits, [row * vocab, vocab], 0, 0, row)?;
                }
            }
            let [a, b] = [&logits[0], &logits[1]].map(|logits| Matrix::tight(logits, vocab));
            let targets = (buffer.all(), start + first + 1);
            metrics::compare(&mut rec, &Positions::new(rows, vocab), &a, &b, targets, (records.all(), 0))?;
            rec.submit()?;
            let compared = metrics::read_comparisons(&gpu, &records, 0, rows).await?;
            let best = [samplers[0].read_first(&gpu, rows).await?, samplers[1].read_first(&gpu, rows).await?];
            for (i, found) in compared.iter().enumerate() {
                scores.tokens.push(Scored {
                    token: ids[(start + first) as usize + i + 1],
                    kl_divergence: f64::from(found.kl_divergence),
                    probability: found.p_target.map(f64::from),
                    best: [candidates(&best[0][i]), candidates(&best[1][i])],
                });
            }
            first += rows;
        }
        start += count;
    }
    Ok(scores)
}
