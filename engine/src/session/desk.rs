//! Where commands are carried out: holds the GPU and the loaded models between them.

use super::command::{Inspect, Source};
use super::event::{EventKind, Failure};
use super::report::{self, Report};
use super::runner::{Interruption, Reporter};
use super::{Command, Options, inspect};
use crate::codec::Stored;
use crate::format::Checkpoint;
use crate::gpu;
use crate::progress::Cancelled;

pub(super) struct Desk {
    options: Options,
}

impl Desk {
    pub(super) fn new(options: Options) -> Self {
        Self { options }
    }

    /// Carries out one command.
    pub(super) async fn execute(&mut self, command: Command, reporter: &Reporter) -> Result<(), Interruption> {
        let report = match command {
            Command::Adapters => self.adapters().await,
            Command::Inspect(command) => inspect_model(command, reporter)?,
            #[cfg(not(target_arch = "wasm32"))]
            Command::Compress(command) => compress_model(command, reporter)?,
            other => return Err(fail(format!("this build cannot do this yet: {other:?}"))),
        };
        reporter.emit(EventKind::Report(Box::new(report)));
        Ok(())
    }

    async fn adapters(&self) -> Report {
        let adapters = gpu::adapters().await;
        let chosen = gpu::chosen(self.options.adapter.as_deref()).await.ok();
        Report::Adapters(report::Adapters { adapters, chosen })
    }
}

fn inspect_model(command: Inspect, reporter: &Reporter) -> Result<Report, Interruption> {
    let stored = Stored::of(&open(command.source)?).map_err(fail)?;
    match inspect::inspect(&stored, command.tensor.as_deref(), &reporter.monitor) {
        Ok(inspection) => Ok(Report::Inspect(inspection)),
        Err(inspect::InspectError::Cancelled(cancelled)) => Err(cancelled.into()),
        Err(error) => Err(fail(error)),
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn compress_model(command: super::Compress, reporter: &Reporter) -> Result<Report, Interruption> {
    use super::compress::{CompressError, compress, keep_source, read_recipe};

    let recipe = read_recipe(&command.recipe).map_err(fail)?;
    if command.rotation.is_some() {
        return Err(fail("rotated models cannot be written yet: leave --rotate out"));
    }
    if let Source::Path(source) = &command.source {
        keep_source(source, &command.output).map_err(fail)?;
    }
    let stored = Stored::of(&open(command.source)?).map_err(fail)?;
    let weights = compress(&stored, &recipe, &command.output, &reporter.monitor).map_err(|error| match error {
        CompressError::Cancelled(cancelled) => cancelled.into(),
        error => fail(error),
    })?;
    let output_bytes = std::fs::metadata(&command.output).map_or(0, |meta| meta.len());
    Ok(Report::Compress(report::Compressed {
        model: inspect::model(&stored),
        recipe: recipe.name().to_owned(),
        output: command.output.display().to_string(),
        output_bytes,
        weights,
    }))
}

/// Opens a model's files.
fn open(source: Source) -> Result<Checkpoint, Interruption> {
    match source {
        #[cfg(not(target_arch = "wasm32"))]
        Source::Path(path) => Checkpoint::open(&path).map_err(fail),
        #[cfg(target_arch = "wasm32")]
        Source::Path(path) => {
            Err(fail(format!("{}: a browser gives no access to paths; send the files instead", path.display())))
        }
        Source::Files(files) => Checkpoint::from_files(files).map_err(fail),
    }
}

impl From<Cancelled> for Interruption {
    fn from(_: Cancelled) -> Self {
        Self::Cancelled
    }
}

fn fail(message: impl ToString) -> Interruption {
    Interruption::Failed(Failure { message: message.to_string(), device_lost: false })
}
