//! Errors of the engine's rooms as the protocol's: cancelled, or failed with one sentence.

use super::event::Failure;
use super::runner::Interruption;
use crate::codec::CodecError;
use crate::eval::EvalError;
use crate::format::FormatError;
use crate::generate::TokenizerError;
use crate::generate::chat::ChatError;
use crate::gpu::GpuError;
use crate::model::{ModelError, PolicyError};
use crate::ops::OpsError;
use crate::progress::Cancelled;

/// A failure for any other reason than the device.
pub(super) fn fail(message: impl ToString) -> Interruption {
    Interruption::Failed(Failure { message: message.to_string(), device_lost: false })
}

impl From<Cancelled> for Interruption {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}

impl From<GpuError> for Interruption {
    fn from(error: GpuError) -> Self {
        let device_lost = matches!(error, GpuError::DeviceLost { .. });
        Self::Failed(Failure { message: error.to_string(), device_lost })
    }
}

impl From<OpsError> for Interruption {
    fn from(error: OpsError) -> Self {
        match error {
            OpsError::Gpu(error) => error.into(),
            error => fail(error),
        }
    }
}

impl From<ModelError> for Interruption {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Cancelled(cancelled) => cancelled.into(),
            ModelError::Ops(error) => error.into(),
            error => fail(error),
        }
    }
}

/// Errors that are nothing but a sentence here.
macro_rules! sentences {
    ($($error:ty),*) => {
        $(impl From<$error> for Interruption {
            fn from(error: $error) -> Self {
                fail(error)
            }
        })*
    };
}

sentences!(CodecError, EvalError, FormatError, TokenizerError, ChatError, PolicyError);
