//! What files call the tensors of a model.

/// A tensor's place in the model; the name of its weight, or of its bias, is made by [`Naming`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Token embeddings `[vocab, hidden]`.
    Embed,
    /// Learned positions of encoders `[max_positions, hidden]`.
    Positions,
    /// Segment embeddings of encoders.
    TokenTypes,
    /// Norm of the embeddings of encoders.
    EmbedNorm,
    /// Output projection `[vocab, hidden]`; absent where it is the embedding table.
    Head,
    /// Norm before the output projection.
    FinalNorm,
    /// Norm before attention; in encoders, after.
    AttentionNorm,
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
    /// Queries, keys and values in one (Phi-3).
    Qkv,
    /// Output of attention.
    O,
    /// Norm of each query head.
    QNorm,
    /// Norm of each key head.
    KNorm,
    /// Norm after attention (Gemma).
    PostAttentionNorm,
    /// Norm before the MLP; in encoders, after.
    MlpNorm,
    /// Gate of the MLP.
    Gate,
    /// First layer of the MLP.
    Up,
    /// Gate and first layer in one (Phi-3).
    GateUp,
    /// Second layer of the MLP.
    Down,
    /// Norm after the MLP (Gemma).
    PostMlpNorm,
}

/// A scheme of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// llama.cpp's.
    Gguf {
        /// Norms follow each block of an encoder, and are called by it.
        encoder: bool,
    },
    /// Hugging Face transformers' for decoders; what stands before `embed_tokens` ("model.").
    HuggingFace {
        /// With its dot.
        prefix: String,
        /// A norm follows each block, which changes what the others are called.
        post_norms: bool,
    },
    /// Hugging Face transformers' for BERT; what stands before `embeddings` ("" or "bert.").
    Bert {
        /// With its dot.
        prefix: String,
    },
}

impl Naming {
    /// The name of a tensor without `.weight` or `.bias`; `layer` is ignored by those that belong to none.
    /// `None` where the scheme has no such tensor.
    pub fn stem(&self, role: Role, layer: u32) -> Option<String> {
        use Role::{
            AttentionNorm, Down, Embed, EmbedNorm, FinalNorm, Gate, GateUp, Head, K, KNorm, MlpNorm, O, Positions,
            PostAttentionNorm, PostMlpNorm, Q, QNorm, Qkv, TokenTypes, Up, V,
        };
        let of_layer = |start: &str, name: &str| format!("{start}{layer}.{name}");
        Some(match self {
            Self::Gguf { encoder } => match role {
                Embed => "token_embd".into(),
                Positions => "position_embd".into(),
                TokenTypes => "token_types".into(),
                EmbedNorm => "token_embd_norm".into(),
                Head => "output".into(),
                FinalNorm => "output_norm".into(),
                _ => of_layer(
                    "blk.",
                    match role {
                        AttentionNorm if *encoder => "attn_output_norm",
                        MlpNorm if *encoder => "layer_output_norm",
                        AttentionNorm => "attn_norm",
                        Q => "attn_q",
                        K => "attn_k",
                        V => "attn_v",
                        Qkv => "attn_qkv",
                        O => "attn_output",
                        QNorm => "attn_q_norm",
                        KNorm => "attn_k_norm",
                        PostAttentionNorm => "post_attention_norm",
                        MlpNorm => "ffn_norm",
                        Gate => "ffn_gate",
                        Up | GateUp => "ffn_up",
                        Down => "ffn_down",
                        PostMlpNorm => "post_ffw_norm",
                        _ => return None,
                    },
                ),
            },
            Self::HuggingFace { prefix, post_norms } => match role {
                Embed => format!("{prefix}embed_tokens"),
                FinalNorm => format!("{prefix}norm"),
                Head => match prefix.strip_suffix("model.") {
                    Some(outer) => format!("{outer}lm_head"),
                    None => "lm_head".into(),
                },
                _ => of_layer(
                    &format!("{prefix}layers."),
                    match (role, post_norms) {
                        (AttentionNorm, _) => "input_layernorm",
                        (Q, _) => "self_attn.q_proj",
                        (K, _) => "self_attn.k_proj",
                        (V, _) => "self_attn.v_proj",
                        (Qkv, _) => "self_attn.qkv_proj",
                        (O, _) => "self_attn.o_proj",
                        (QNorm, _) => "self_attn.q_norm",
                        (KNorm, _) => "self_attn.k_norm",
                        (PostAttentionNorm, true) | (MlpNorm, false) => "post_attention_layernorm",
                        (MlpNorm, true) => "pre_feedforward_layernorm",
                        (PostMlpNorm, true) => "post_feedforward_layernorm",
                        (Gate, _) => "mlp.gate_proj",
                        (Up, _) => "mlp.up_proj",
                        (GateUp, _) => "mlp.gate_up_proj",
                        (Down, _) => "mlp.down_proj",
                        _ => return None,
                    },
                ),
            },
            Self::Bert { prefix } => match role {
                Embed => format!("{prefix}embeddings.word_embeddings"),
                Positions => format!("{prefix}embeddings.position_embeddings"),
                TokenTypes => format!("{prefix}embeddings.token_type_embeddings"),
                EmbedNorm => format!("{prefix}embeddings.LayerNorm"),
                _ => of_layer(
                    &format!("{prefix}encoder.layer."),
                    match role {
                        Q => "attention.self.query",
                        K => "attention.self.key",
                        V => "attention.self.value",
                        O => "attention.output.dense",
                        AttentionNorm => "attention.output.LayerNorm",
                        Up => "intermediate.dense",
                        Down => "output.dense",
                        MlpNorm => "output.LayerNorm",
                        _ => return None,
                    },
                ),
            },
        })
    }
}

/// What the weight called `name` is in a decoder's layer, if it is one of its matrices. In GGUF one name is given to [`Role::Up`] and
/// [`Role::GateUp`]; it is taken for the former.
pub fn matrix_of_a_decoder(name: &str) -> Option<Role> {
    let stem = name.strip_suffix(".weight")?;
    let (before, layer) = ["blk.", "layers."].into_iter().find_map(|start| stem.split_once(start))?;
    let layer: u32 = layer.split_once('.')?.0.parse().ok()?;
    let schemes = [Naming::Gguf { encoder: false }, Naming::HuggingFace { prefix: before.into(), post_norms: false }];
    let roles =
        [Role::Q, Role::K, Role::V, Role::Qkv, Role::O, Role::Gate, Role::Up, Role::GateUp, Role::Down].into_iter();
    roles.into_iter().find(|role| schemes.iter().any(|scheme| scheme.stem(*role, layer).as_deref() == Some(stem)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_are_known_by_their_names() {
        for (name, role) in [
            ("blk.12.attn_k.weight", Some(Role::K)),
            ("blk.0.ffn_up.weight", Some(Role::Up)),
            ("model.layers.3.mlp.gate_up_proj.weight", Some(Role::GateUp)),
            ("language_model.model.layers.0.self_attn.o_proj.weight", Some(Role::O)),
            ("blk.0.attn_norm.weight", None),
            ("blk.x.attn_k.weight", None),
            ("model.layers.3.mlp.down_proj.bias", None),
            ("encoder.layer.3.output.dense.weight", None),
            ("token_embd.weight", None),
        ] {
            assert_eq!(matrix_of_a_decoder(name), role, "{name}");
        }
    }

    #[test]
    fn one_norm_has_two_names_and_one_name_two_norms() {
        let scheme = |post_norms| Naming::HuggingFace { prefix: "model.".into(), post_norms };
        let name = |post_norms, role| scheme(post_norms).stem(role, 3);
        let post = Some("model.layers.3.post_attention_layernorm".to_owned());
        assert_eq!(name(false, Role::MlpNorm), post);
        assert_eq!(name(true, Role::PostAttentionNorm), post);
        assert_eq!(name(false, Role::PostAttentionNorm), None);
        let gguf = |encoder, role| Naming::Gguf { encoder }.stem(role, 0);
        assert_eq!(gguf(false, Role::PostMlpNorm).as_deref(), Some("blk.0.post_ffw_norm"));
        assert_eq!(gguf(false, Role::MlpNorm).as_deref(), Some("blk.0.ffn_norm"));
        assert_eq!(gguf(true, Role::MlpNorm).as_deref(), Some("blk.0.layer_output_norm"));
        assert_eq!(scheme(false).stem(Role::Head, 0).as_deref(), Some("lm_head"));
    }
}
