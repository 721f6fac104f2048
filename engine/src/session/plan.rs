//! What a recipe would make of a model, from the codecs' layouts alone: nothing is read, encoded or uploaded.

use super::Recipe;
use super::desk::read_recipe;
use super::report::{Fallback, TensorRow, Weights};
use crate::codec::{CodecError, parse};
use crate::model::shrink::planned;

/// What the matrices of a language model will take on the GPU when it is loaded with `recipe`, `None` being as they are stored.
///
/// `tensors`: of an [inspection](report::Inspection). `rotated`: whether a rotation comes first, which gives a model with tied
/// embeddings an output projection of its own. Codecs whose planes are of variable length are counted with about the most that
/// they take; of a stage that takes heads and channels away [`planned`] says about how many. The errors of tensors are not known before they
/// are encoded, so that list is empty.
///
/// # Errors
/// A recipe that cannot be read.
pub fn plan(tensors: &[TensorRow], recipe: Option<&Recipe>, rotated: bool) -> Result<Weights, CodecError> {
    let recipe = recipe.map(read_recipe).transpose()?;
    let matrices = tensors.iter().filter(|tensor| is_weight_matrix(&tensor.name, &tensor.shape));
    // Each with whether rows of it are looked up.
    let mut rows: Vec<(&TensorRow, bool)> = matrices.clone().map(|tensor| (tensor, is_table(&tensor.name))).collect();
    if rotated && !tensors.iter().any(|tensor| is_head(&tensor.name)) {
        rows.extend(matrices.filter(|tensor| is_table(&tensor.name)).map(|tensor| (tensor, false)));
    }
    let mut weights = Weights::default();
    let mut elements = 0.0;
    for (tensor, table) in rows {
        let shape = [tensor.shape[0], tensor.shape[1]].map(|n| usize::try_from(n).unwrap_or(usize::MAX));
        let stored = || if rotated { parse("f32") } else { parse(&tensor.dtype) };
        let shape = match recipe.as_ref().and_then(|recipe| recipe.shrink()) {
            Some(stage) => planned(stage, &tensor.name, shape),
            None => shape,
        };
        let (codec, asked) = match &recipe {
            Some(recipe) => {
                let choice = recipe.choose(&tensor.name, shape[0], shape[1]);
                let choice = if table { choice.for_table() } else { choice };
                (Some(choice.codec), choice.fallback_from)
            }
            None => (stored().ok(), None),
        };
        let (name, bytes) = match codec {
            Some(codec) => (codec.name(), codec.planned_bytes(shape[0], shape[1])),
            None => (tensor.dtype.to_lowercase(), tensor.bytes), // a type that no codec has
        };
        weights.bytes = weights.bytes.saturating_add(bytes);
        elements += shape[0] as f64 * shape[1] as f64;
        match weights.codecs.iter_mut().find(|(known, _)| *known == name) {
            Some((_, count)) => *count += 1,
            None => weights.codecs.push((name.clone(), 1)),
        }
        weights.fallbacks.extend(asked.map(|asked| Fallback { tensor: tensor.name.clone(), asked, used: name }));
    }
    weights.codecs.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    weights.bits_per_weight = if elements > 0.0 { 8.0 * weights.bytes as f64 / elements } else { 0.0 };
    Ok(weights)
}

/// A matrix that recipes apply to: two dimensions, and looked up or multiplied by.
///
/// Position and token-type embeddings are tables of an encoder that are added, small, and kept as they are, as llama.cpp
/// does.
pub(super) fn is_weight_matrix(name: &str, shape: &[u64]) -> bool {
    let table = ["position_embd", "position_embeddings", "token_types", "token_type_embeddings"];
    shape.len() == 2 && shape[0] > 1 && !table.iter().any(|part| name.contains(part)) && !name.contains("norm")
}

fn is_head(name: &str) -> bool {
    name == "output.weight" || name.ends_with("lm_head.weight")
}

/// A table of embeddings, of which rows are looked up.
pub(super) fn is_table(name: &str) -> bool {
    ["token_embd.weight", "embed_tokens.weight", "word_embeddings.weight"].iter().any(|table| name.ends_with(table))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, shape: [u64; 2], dtype: &str) -> TensorRow {
        let bytes = 2 * shape[0] * shape[1];
        TensorRow { name: name.into(), shape: shape.to_vec(), dtype: dtype.into(), bytes }
    }

    #[test]
    fn bits_are_those_of_the_layouts_and_rows_that_do_not_fit_fall_back() {
        let tensors = [
            tensor("model.embed_tokens.weight", [64, 256], "BF16"),
            tensor("model.layers.0.mlp.down_proj.weight", [256, 96], "BF16"),
            tensor("model.layers.0.input_layernorm.weight", [1, 256], "BF16"),
        ];
        let recipe = |text: &str| Recipe::Codec(text.into());
        let found = plan(&tensors, Some(&recipe("q4_k")), false).unwrap();
        // 4.5 bits, and q5_0's 5.5 for rows of 96, whose three scales are padded to two words.
        assert_eq!(found.bytes, 64 * 256 * 9 / 16 + 256 * 96 * 11 / 16 + 256 * 2);
        assert_eq!(found.fallbacks.len(), 1);
        assert_eq!(found.fallbacks[0].used, "q5_0");
        let dense = plan(&tensors, None, false).unwrap();
        assert_eq!((dense.bits_per_weight, dense.codecs), (16.0, vec![("bf16".to_owned(), 2)]));
        let rotated = plan(&tensors, Some(&recipe("bf16")), true).unwrap();
        assert_eq!(rotated.bytes, dense.bytes + 2 * 64 * 256, "tied embeddings come apart");
        let pruned = plan(&tensors, Some(&recipe("prune:ffn=60,align=32+bf16")), false).unwrap();
        assert_eq!(pruned.bytes, 2 * (64 * 256 + 256 * 32), "a third of the channels is the nearest");
        assert_eq!(pruned.bits_per_weight, 16.0);
        assert!(plan(&tensors, Some(&recipe("q9")), false).unwrap_err().to_string().contains("unknown codec"));
    }
}
