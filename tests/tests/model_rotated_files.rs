//! Rotated models written by `compress`: every family that can be rotated, as GGUF and as safetensors, holds bit for bit the
//! weights that loading with a rotation makes, and so computes what transformers does.

use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use tersor_engine::format::Checkpoint;
use tersor_engine::model::rotation_of;
use tersor_engine::session::{Calibration, Command, Compress, EventKind, Options, Recipe, Rotation, Session, Source};
use tersor_tests::converted::Converted;
use tersor_tests::decoder::{Form, load, load_as, logits, worst};
use tersor_tests::families::{golden, open, rotatable};
use tersor_tests::kernel::gpus;

const SEED: u64 = 7;

fn write(source: Source, output: &Path) {
    let (sender, events) = channel();
    let sender = Mutex::new(sender);
    let session = Session::start(Options::default(), move |event| {
        let _ = sender.lock().unwrap().send(event.kind);
    })
    .unwrap();
    session.send(Command::Compress(Compress {
        source,
        recipe: Recipe::Codec("f32".into()),
        rotation: Some(Rotation { seed: SEED }),
        calibration: Calibration::default(),
        output: output.to_owned(),
    }));
    let last = events.iter().find(EventKind::is_last).unwrap();
    assert!(matches!(last, EventKind::Done), "{}: {last:?}", output.display());
}

#[test]
fn a_rotated_file_holds_the_rotated_model() {
    let gpu = &gpus()[0];
    let folder = tempfile::tempdir().unwrap();
    for family in rotatable() {
        let golden = golden(family);
        let ids = golden.u32s("input_ids");
        let hugging_face = tersor_tests::golden::path("families").join(family).join("model.safetensors");
        let gguf = Source::Files(vec![("m.gguf".into(), Converted::of(family).bytes())]);
        for (source, original, ending) in [
            (Source::Path(hugging_face), open(family, "config.json"), "safetensors"),
            (gguf, Converted::of(family).open(), "gguf"),
        ] {
            let output = folder.path().join(format!("{family}.{ending}"));
            write(source, &output);
            let written = Checkpoint::open(&output).unwrap();
            assert_eq!(rotation_of(&written), Some(SEED));
            let found = logits(&load(gpu, &written, 64), &ids, 64, &[48]);
            let form = Form { rotation: Some(SEED), ..Form::default() };
            let expected = logits(&load_as(gpu, &original, form, 64), &ids, 64, &[48]);
            assert_eq!(worst(&found, &expected), 0.0, "{family}.{ending}");
        }
    }
}
