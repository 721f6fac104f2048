//! The protocol, on commands that need no GPU.

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::*;

/// Two tensors: `a` = I32 [[1, 2], [3, 4]], `b` = F16 [1.5, −2].
fn checkpoint() -> Source {
    let header = concat!(
        r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"I32","shape":[2,2],"data_offsets":[0,16]},"#,
        r#""b":{"dtype":"F16","shape":[2],"data_offsets":[16,20]}}"#
    );
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.bytes());
    bytes.extend([1i32, 2, 3, 4].iter().flat_map(|v| v.to_le_bytes()));
    bytes.extend([0x00, 0x3e, 0x00, 0xc0]);
    Source::Files(vec![("model.safetensors".to_owned(), bytes)])
}

fn start() -> (Session, Receiver<Event>) {
    let (sender, receiver) = channel();
    let sender = std::sync::Mutex::new(sender);
    let session = Session::start(Options::default(), move |event| {
        let _ = sender.lock().unwrap().send(event);
    });
    (session.unwrap(), receiver)
}

/// All events of a job, which must come last to first without another job's in between.
fn events(receiver: &Receiver<Event>, job: JobId) -> Vec<EventKind> {
    let mut kinds = Vec::new();
    loop {
        let event = receiver.recv_timeout(Duration::from_secs(20)).expect("the session answers");
        assert_eq!(event.job, job);
        kinds.push(event.kind);
        if kinds.last().is_some_and(EventKind::is_last) {
            return kinds;
        }
    }
}

fn inspect(tensor: &str) -> Command {
    Command::Inspect(Inspect { source: checkpoint(), tensor: Some(tensor.to_owned()) })
}

#[test]
fn a_job_reports_and_ends() {
    let (session, receiver) = start();
    let job = session.send(inspect("b"));
    let kinds = events(&receiver, job);
    let [EventKind::Report(report), EventKind::Done] = kinds.as_slice() else { panic!("{kinds:?}") };
    let Report::Inspect(found) = report.as_ref() else { panic!() };
    assert_eq!(found.tensors.len(), 2);
    let statistics = found.statistics.as_ref().unwrap();
    assert_eq!((statistics.min, statistics.max, statistics.mean), (-2.0, 1.5, -0.25));
    assert_eq!(statistics.first, [1.5, -2.0]);
    let json = serde_json::to_value(report).unwrap();
    assert_eq!(json["schema"], "tersor.inspect/1");
}

#[test]
fn a_failure_is_one_sentence_and_the_session_goes_on() {
    let (session, receiver) = start();
    let job = session.send(inspect("c"));
    let kinds = events(&receiver, job);
    let [EventKind::Failed(failure)] = kinds.as_slice() else { panic!("{kinds:?}") };
    assert!(failure.message.contains("no tensor \"c\""), "{}", failure.message);
    let job = session.send(inspect("a")); // integers are no weights
    assert!(matches!(events(&receiver, job).last(), Some(EventKind::Failed(f)) if f.message.contains('a')));
    let job = session.send(inspect("b"));
    assert!(matches!(events(&receiver, job).last(), Some(EventKind::Done)));
}

#[test]
fn jobs_that_wait_can_be_cancelled_and_order_is_kept() {
    // The first event holds the session up until the jobs behind it are queued and one of them is cancelled.
    let (sender, receiver) = channel();
    let (open, gate) = channel::<()>();
    let shared = std::sync::Mutex::new((sender, gate, true));
    let session = Session::start(Options::default(), move |event| {
        let mut shared = shared.lock().unwrap();
        if std::mem::take(&mut shared.2) {
            let _ = shared.1.recv();
        }
        let _ = shared.0.send(event);
    })
    .unwrap();
    let first = session.send(inspect("b"));
    let second = session.send(inspect("b"));
    let third = session.send(inspect("b"));
    session.cancel(second);
    open.send(()).unwrap();
    assert!(matches!(events(&receiver, first).last(), Some(EventKind::Done)));
    assert!(matches!(events(&receiver, second).as_slice(), [EventKind::Cancelled]));
    assert!(matches!(events(&receiver, third).last(), Some(EventKind::Done)));
}

#[test]
fn commands_and_events_cross_a_boundary_as_json() {
    let command = Command::Generate(Generate {
        slot: Slot(1),
        input: Input::Chat(vec![Message { role: Role::User, content: "hi".to_owned() }]),
        sampling: Sampling::default(),
        tokens: 8,
        stop: vec!["\n".to_owned()],
    });
    let text = serde_json::to_string(&command).unwrap();
    assert_eq!(serde_json::from_str::<Command>(&text).unwrap(), command);
    let event = Event { job: JobId(7), kind: EventKind::Token { id: 3, text: "é".to_owned() } };
    let text = serde_json::to_string(&event).unwrap();
    assert_eq!(text, r#"{"job":7,"event":"token","data":{"id":3,"text":"é"}}"#);
    let back: Event = serde_json::from_str(&text).unwrap();
    assert!(matches!(back.kind, EventKind::Token { id: 3, .. }));
}
