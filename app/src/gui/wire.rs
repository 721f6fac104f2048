//! What crosses between the page and its worker: JSON texts, and beside them the files that a person handed over.

use serde::{Deserialize, Serialize};
use tersor_engine::session::{Command, Event, JobId, Options};

use super::client::Kept;

/// From the page to the worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToWorker {
    /// The first message.
    Start {
        /// How to use the GPU.
        options: Options,
        /// Where the Hugging Face Hub is.
        hub: String,
    },
    /// Carry out a command under this id.
    Send(JobId, Command),
    /// Get a model: of the browser's storage, the page's own host, or the Hugging Face Hub.
    Fetch(JobId, String),
    /// The files beside this message are a model of this name.
    Take(JobId, String),
    /// Delete a model from the browser's storage.
    Forget(String),
    /// Stop.
    Cancel(JobId),
}

/// From the worker to the page.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromWorker {
    /// Something happened to a job.
    Event(Event),
    /// The models that are in the browser's storage now.
    Stored(Vec<Kept>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gui::library::Origin;
    use tersor_engine::session::{EventKind, Inspect};

    #[test]
    fn messages_cross_as_text() {
        let source = Origin::Named("tiny".into()).source();
        let message = ToWorker::Send(JobId(3), Command::Inspect(Inspect { source, tensor: None }));
        let text = serde_json::to_string(&message).unwrap();
        assert_eq!(serde_json::from_str::<ToWorker>(&text).unwrap(), message);
        let event = Event { job: JobId(3), kind: EventKind::Token { id: 7, text: "é".into() } };
        let text = serde_json::to_string(&FromWorker::Event(event)).unwrap();
        assert_eq!(text, r#"{"event":{"job":3,"event":"token","data":{"id":7,"text":"é"}}}"#);
        assert!(matches!(serde_json::from_str(&text), Ok(FromWorker::Event(Event { job: JobId(3), .. }))));
    }
}
