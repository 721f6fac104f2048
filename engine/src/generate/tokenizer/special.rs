//! Which tokens end a turn, whatever a checkpoint's metadata forgot to say.

use super::SpecialTokens;
use super::vocabulary::AddedTokens;

/// Tokens that end a turn in the chat formats in use; the first that a vocabulary has is its end of turn.
const END_OF_TURN: [&str; 9] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<end_of_turn>",
    "<|end|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<｜end▁of▁sentence｜>",
    "<end_of_utterance>",
    "<EOT>",
];

/// Further tokens at which generation ends.
const ALSO_ENDS: [&str; 1] = ["<|eom_id|>"];

impl SpecialTokens {
    /// Drops ids that a vocabulary of `size` tokens does not have, with a note.
    pub(super) fn drop_strangers(&mut self, size: usize, notes: &mut Vec<String>) {
        let named = [
            ("beginning-of-text", &mut self.bos),
            ("end-of-text", &mut self.eos),
            ("end-of-turn", &mut self.end_of_turn),
            ("separator", &mut self.separator),
            ("unknown", &mut self.unknown),
            ("padding", &mut self.padding),
        ];
        for (name, slot) in named {
            if let Some(id) = slot.take_if(|id| *id as usize >= size) {
                notes.push(format!("the {name} token {id} is none of the vocabulary's {size} tokens and is not used"));
            }
        }
        self.ends.retain(|id| (*id as usize) < size);
    }

    /// Completes the set of end tokens by what the added tokens are called.
    pub(super) fn complete(&mut self, added: &AddedTokens) {
        let known = |name: &&str| added.id(name);
        self.end_of_turn = self.end_of_turn.or_else(|| END_OF_TURN.iter().find_map(known));
        self.ends.extend(END_OF_TURN.iter().chain(&ALSO_ENDS).filter_map(known));
        self.ends.extend(self.eos);
        self.ends.extend(self.end_of_turn);
    }
}
