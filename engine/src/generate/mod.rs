//! From a prompt to a stream of text: tokenizers ([`tokenizer`]), chat templates ([`chat`]) and the decoder of a token
//! stream ([`stream`]).

pub mod chat;
mod continuation;
pub mod stream;
pub mod tokenizer;

pub use chat::{ChatTemplate, Message};
pub use continuation::{Continuation, ContinueOptions, Step, StopReason, continue_text, warm_up};
pub use stream::{StreamDecoder, StreamOptions};
pub use tokenizer::{EncodeOptions, Tokenizer, TokenizerError};

/// Runs other people's code on input nobody vouches for; a panic in it is `None`. What is known to make it panic is refused
/// beforehand: this is for the rest. (Where panics abort, in browsers, it is the end of the worker.)
fn contained<T>(run: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).ok()
}
