//! From a prompt to a stream of text: tokenizers ([`tokenizer`]), chat templates ([`chat`]) and the decoder of a token
//! stream ([`stream`]).

pub mod chat;
pub mod stream;
pub mod tokenizer;

pub use chat::{ChatTemplate, Message};
pub use stream::{StreamDecoder, StreamOptions};
pub use tokenizer::{EncodeOptions, Tokenizer, TokenizerError};
