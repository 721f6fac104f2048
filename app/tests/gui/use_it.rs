//! What a person does: clicks, keys, and what follows from them.

use std::cell::RefCell;
use std::rc::Rc;

use eframe::egui::accesskit::Role;
use eframe::egui::{Key, Modifiers};
use egui_kittest::Harness;
use egui_kittest::kittest::Queryable as _;
use tersor::gui::App;
use tersor::gui::client::Happening;
use tersor::gui::start::Start;
use tersor::gui::state::{Action, Phase, Remedy, Settings, Tab, Trade};
use tersor_engine::progress::{Progress, Unit};
use tersor_engine::session::report::Benchmark;
use tersor_engine::session::{Attend, Command, Event, EventKind, Failure, JobId, Report};

use super::scripted::{ORIGINAL, PART, Record, Scripted};

/// A window with the app in it.
pub struct Screen {
    pub harness: Harness<'static, Option<App>>,
}

/// Opens the app on a screen of this size.
pub fn screen(size: [f32; 2], settings: Settings, start: Start) -> (Screen, Rc<RefCell<Record>>) {
    let (client, record) = Scripted::new();
    let mut client = Some((client, settings, start));
    let mut harness = Harness::builder().with_size(size).with_max_steps(60).build_ui_state(
        move |ui, app: &mut Option<App>| {
            if let Some((client, settings, start)) = client.take() {
                *app = Some(App::new(ui.ctx(), Box::new(client), settings, start));
            }
            if let Some(app) = app {
                app.ui(ui);
            }
        },
        None,
    );
    harness.run();
    (Screen { harness }, record)
}

impl Screen {
    pub fn app(&mut self) -> &mut App {
        self.harness.state_mut().as_mut().unwrap()
    }

    /// Does what a button would, and draws until nothing changes any more.
    pub fn act(&mut self, action: Action) {
        self.app().act(action);
        self.harness.run();
    }

    pub fn click(&mut self, label: &str) {
        self.harness.get_by_label(label).click();
        self.harness.run();
    }

    fn press(&mut self, modifiers: Modifiers, key: Key) {
        self.harness.key_press_modifiers(modifiers, key);
        self.harness.run();
    }
}

fn with_tiny() -> Start {
    Start { model: Some("tiny".into()), ..Start::default() }
}

fn desk(start: Start) -> (Screen, Rc<RefCell<Record>>) {
    screen([1280.0, 800.0], Settings::default(), start)
}

#[test]
fn a_model_is_chosen_and_compared_with_two_clicks() {
    let (mut screen, record) = desk(Start::default());
    assert_eq!(screen.app().state.tab, Tab::Models);
    screen.click("tiny");
    assert_eq!(record.borrow().fetched, ["tiny"]);
    assert_eq!(screen.app().state.tab, Tab::Compare);
    screen.click("Run");
    let state = &screen.app().state;
    assert_eq!(state.compare.columns[0].text(), ORIGINAL.concat());
    assert!(state.compare.columns.iter().all(|column| column.phase == Phase::Idle && column.loaded.is_some()));
    assert_eq!(state.compare.columns[1].first_difference, None);
    assert!(state.compare.columns[1].divergence().is_some());
    // The text is there for screen readers, too.
    assert_eq!(screen.harness.get_all_by_label(&ORIGINAL.concat()).count(), 2);
}

#[test]
fn every_page_and_action_has_a_key() {
    let (mut screen, record) = desk(with_tiny());
    for (key, tab) in [
        (Key::Num3, Tab::Quality),
        (Key::Num4, Tab::Tensors),
        (Key::Num5, Tab::Kernels),
        (Key::Num6, Tab::Attention),
        (Key::Num1, Tab::Models),
        (Key::Num2, Tab::Compare),
    ] {
        screen.press(Modifiers::ALT, key);
        assert_eq!(screen.app().state.tab, tab);
    }
    screen.press(Modifiers::COMMAND, Key::O);
    assert_eq!(record.borrow().picked, 1);
    // The key that runs does what the page is for.
    for (tab, is_meant) in [
        (Tab::Quality, (|command| matches!(command, Command::Compare(_))) as fn(&Command) -> bool),
        (Tab::Kernels, |command| matches!(command, Command::Bench(_))),
        (Tab::Attention, |command| matches!(command, Command::Attend(_))),
        (Tab::Compare, |command| matches!(command, Command::Generate(_))),
    ] {
        screen.act(Action::Show(tab));
        assert!(!record.borrow().sent.iter().any(is_meant));
        screen.press(Modifiers::COMMAND, Key::Enter);
        assert!(record.borrow().sent.iter().any(is_meant), "{}", tab.name());
    }
    assert!(!screen.app().state.compare.columns[0].pieces.is_empty());
    // Esc stops what runs.
    record.borrow_mut().silent = true;
    screen.press(Modifiers::COMMAND, Key::Enter);
    assert!(screen.app().state.compare.is_running());
    screen.press(Modifiers::NONE, Key::Escape);
    assert!(!screen.app().state.compare.is_running());
    assert!(!record.borrow().cancelled.is_empty());
}

#[test]
fn what_is_loaded_is_not_loaded_again_and_what_changed_is() {
    let loads = |record: &Rc<RefCell<Record>>| {
        record.borrow().sent.iter().filter(|command| matches!(command, Command::Load(_))).count()
    };
    let (mut screen, record) = desk(Start { run: true, ..with_tiny() });
    assert_eq!(loads(&record), 2);
    screen.act(Action::Run);
    assert_eq!(loads(&record), 2);
    let slot = screen.app().state.compare.columns[1].slot;
    screen.act(Action::Change(slot, "q2_k".into()));
    assert!(screen.app().state.compare.columns[1].pieces.is_empty());
    screen.act(Action::Run);
    assert_eq!(loads(&record), 3);
    let column = &screen.app().state.compare.columns[1];
    assert_eq!(column.first_difference, Some(PART));
    screen.act(Action::Rotate(true));
    screen.act(Action::Run);
    assert_eq!(loads(&record), 5, "another basis is another model");
}

#[test]
fn sizes_are_there_before_anything_runs_and_nonsense_is_explained() {
    let (mut screen, record) = desk(with_tiny());
    let slot = screen.app().state.compare.columns[1].slot;
    let plan = screen.app().state.compare.columns[1].plan.clone().unwrap().unwrap();
    assert!((plan.bits_per_weight - 4.5).abs() < 1e-9);
    assert!(!record.borrow().sent.iter().any(|command| matches!(command, Command::Load(_))));
    screen.act(Action::Change(slot, "q4k".into()));
    let why = screen.app().state.compare.columns[1].plan.clone().unwrap().unwrap_err();
    assert!(why.contains("did you mean `q4_k`"), "{why}");
    screen.act(Action::Run);
    let columns = &screen.app().state.compare.columns;
    assert!(matches!(&columns[1].phase, Phase::Failed(found) if *found == why));
    assert!(!columns[0].pieces.is_empty(), "the original writes all the same");
}

#[test]
fn columns_come_and_go() {
    let (mut screen, record) = desk(Start { run: true, ..with_tiny() });
    screen.click("Add a compression");
    screen.click("Add a compression");
    assert_eq!(screen.app().state.settings.recipes, ["q4_k", "q8_0", "q3_k"]);
    assert!(screen.harness.query_by_label("Add a compression").is_none(), "there is no room for more");
    let slot = screen.app().state.compare.columns[1].slot;
    screen.act(Action::Remove(slot));
    assert_eq!(screen.app().state.settings.recipes, ["q8_0", "q3_k"]);
    assert!(record.borrow().sent.contains(&Command::Unload(slot)), "its memory is given back");
}

#[test]
fn a_lost_device_can_be_recovered_from_in_one_click() {
    let (mut screen, record) = desk(with_tiny());
    record.borrow_mut().failure = Some(Failure { message: "device lost".into(), device_lost: true });
    screen.act(Action::Run);
    let notice = screen.app().state.notice.clone().unwrap();
    assert_eq!(notice.remedy, Some(("Load again and run", Remedy::Run)));
    assert!(!screen.app().state.is_busy());
    record.borrow_mut().failure = None;
    screen.click("Load again and run");
    assert_eq!(screen.app().state.notice, None);
    assert_eq!(screen.app().state.compare.columns[1].pieces.len(), ORIGINAL.len());
}

#[test]
fn a_model_that_cannot_be_had_here_says_so() {
    let (mut screen, record) = desk(Start::default());
    screen.click("minilm-l6");
    assert!(record.borrow().fetched.is_empty());
    screen.harness.get_by_label("In a browser: drop the file on this page.");
}

#[test]
fn whatever_the_command_line_opens_can_be_typed() {
    let (mut screen, record) = desk(Start::default());
    screen.app().state.typed = Some(" org/name ".to_owned());
    screen.click("Open");
    assert_eq!(record.borrow().fetched, ["org/name"]);
    assert_eq!(screen.app().state.tab, Tab::Compare, "what is opened is shown");
}

#[test]
fn measurements_add_up() {
    let (mut screen, _) = desk(Start { tab: Some(Tab::Quality), run: true, ..with_tiny() });
    let recipes = |screen: &mut Screen| -> Vec<String> {
        screen.app().state.quality.table().iter().map(|row| row.variant.recipe.clone()).collect()
    };
    assert_eq!(recipes(&mut screen), ["bf16", "q4_k"]);
    let slot = screen.app().state.compare.columns[1].slot;
    screen.act(Action::Change(slot, "q8_0".into()));
    screen.act(Action::Measure);
    assert_eq!(recipes(&mut screen), ["bf16", "q8_0", "q4_k"]);
    // Under other conditions numbers cannot be compared.
    screen.app().state.settings.windows += 1;
    screen.act(Action::Measure);
    assert_eq!(recipes(&mut screen), ["bf16", "q8_0"]);
}

#[test]
fn nothing_moves_when_nothing_happens() {
    let (mut screen, _) = desk(Start { run: true, ..with_tiny() });
    screen.harness.run();
    for _ in 0..3 {
        screen.harness.step();
        let output = &screen.harness.output().viewport_output;
        let delay = output.values().map(|viewport| viewport.repaint_delay).min().unwrap();
        assert!(delay > std::time::Duration::from_secs(3600), "another frame is asked for in {delay:?}");
    }
}

#[test]
fn compressions_judge_the_originals_text_where_that_is_asked_for() {
    let settings = Settings { recipes: vec!["q2_k".into()], forced: true, ..Settings::default() };
    let (mut screen, record) = screen([1280.0, 800.0], settings, Start { run: true, ..with_tiny() });
    let state = &screen.app().state;
    let [original, other] = state.compare.columns.as_slice() else { panic!() };
    assert_eq!(other.text(), ORIGINAL.concat());
    assert_eq!((&other.phase, other.speed), (&Phase::Idle, None), "it wrote nothing");
    assert_eq!(other.first_difference, Some(0), "where its most likely token is another");
    let tokens: Vec<u32> = original.pieces.iter().map(|piece| piece.token).collect();
    let asked = |command: &Command| matches!(command, Command::Score(score) if score.tokens == tokens);
    assert!(record.borrow().sent.iter().any(asked));
    assert_eq!(record.borrow().sent.iter().filter(|c| matches!(c, Command::Generate(_))).count(), 1);
    // A model that cannot be loaded leaves nobody waiting.
    record.borrow_mut().failure = Some(Failure { message: "no room".into(), device_lost: false });
    let slot = screen.app().state.compare.columns[0].slot;
    let rotated = Action::Rotate(true);
    screen.act(rotated);
    screen.act(Action::Run);
    assert!(!screen.app().state.compare.is_running());
    assert!(matches!(&screen.app().state.compare.column(slot).unwrap().phase, Phase::Failed(why) if why == "no room"));
}

#[test]
fn a_cell_of_the_errors_opens_its_tensor() {
    let (mut screen, _) = desk(Start { tab: Some(Tab::Quality), run: true, ..with_tiny() });
    assert_eq!(screen.app().state.quality.chosen(), Some("q4_k"));
    let name = "model.layers.3.mlp.down_proj.weight";
    screen.harness.get_by_label_contains(name).click();
    screen.harness.run();
    let state = &screen.app().state;
    assert_eq!((state.tab, state.tensors.chosen.as_deref()), (Tab::Tensors, Some(name)));
    assert!(state.tensors.statistics.is_some());
}

#[test]
fn what_is_plotted_and_whose_errors_are_shown_can_be_chosen() {
    let (mut screen, _) = desk(Start { tab: Some(Tab::Quality), run: true, ..with_tiny() });
    for (label, trade) in
        [("Speed and divergence", Trade::SpeedDivergence), ("Size and perplexity", Trade::SizePerplexity)]
    {
        screen.click(label);
        assert_eq!(screen.app().state.quality.trade, trade);
    }
    let slot = screen.app().state.compare.columns[1].slot;
    screen.act(Action::Change(slot, "q2_k".into()));
    screen.act(Action::Measure);
    assert_eq!(screen.app().state.quality.chosen(), Some("q2_k"), "the smallest, unless somebody chose");
    screen.act(Action::Choose("q4_k".into()));
    assert_eq!(screen.app().state.quality.chosen(), Some("q4_k"));
    screen.harness.get_by_label_contains("Error of each matrix in q4_k");
}

#[test]
fn recipes_are_put_together_in_the_form() {
    let (mut screen, _) = desk(with_tiny());
    let recipe = |screen: &mut Screen| screen.app().state.compare.columns[1].recipe.clone();
    screen.click("q4_k");
    screen.click("eora");
    assert_eq!(recipe(&mut screen), "q4_k+eora:rank=32");
    let plan = screen.app().state.compare.columns[1].plan.clone().unwrap().unwrap();
    assert!(plan.bits_per_weight > 4.5, "a correction takes room: {}", plan.bits_per_weight);
    screen.click("prune");
    assert_eq!(recipe(&mut screen), "prune:ffn=25+q4_k+eora:rank=32");
    assert!(matches!(screen.app().state.compare.columns[1].plan, Some(Ok(_))));
}

#[test]
fn kernels_are_measured_without_a_model_and_only_those_asked_for() {
    let (mut screen, record) = desk(Start { tab: Some(Tab::Kernels), ..Start::default() });
    screen.harness.get_by_label("Only with these words").focus();
    screen.harness.run();
    screen.harness.get_by_label("Only with these words").type_text("matvec q4_k, attention-decode");
    screen.harness.run();
    screen.harness.get_by_label("2 measurements");
    screen.click("Everything");
    screen.click("Measure");
    let plan = record.borrow().sent.iter().find_map(|command| match command {
        Command::Bench(plan) => Some(plan.clone()),
        _ => None,
    });
    let plan = plan.unwrap();
    assert_eq!((plan.filter, plan.quick), (vec!["matvec q4_k".to_owned(), "attention-decode".to_owned()], false));
    let found = screen.app().state.kernels.found.clone().unwrap();
    let first = &found.findings.measurements[0];
    screen.harness.get_by_label_contains(&first.name);
    screen.harness.get_by_label_contains("Left out: attention-decode");

    // What nothing is called cannot be measured, and the key for it says why.
    screen.app().state.kernels.filter = "nonsense".to_owned();
    screen.act(Action::Bench);
    let notice = screen.app().state.notice.clone().unwrap();
    assert!(notice.text.contains("nonsense"), "{}", notice.text);
}

#[test]
fn measuring_kernels_can_be_stopped_and_what_was_measured_stays() {
    let start = Start { tab: Some(Tab::Kernels), run: true, ..Start::default() };
    let (mut screen, record) = desk(start);
    assert!(screen.app().state.kernels.found.is_some(), "it begins at once where that is asked for");
    record.borrow_mut().silent = true;
    screen.act(Action::Bench);
    let job = record.borrow().sent.len() as u64;
    let stage = "matvec q4_k 4096x4096 1".to_owned();
    let progress = Progress { stage: stage.clone(), done: 3, total: 17, unit: Unit::Measurements };
    let event = Event { job: JobId(job), kind: EventKind::Progress(progress) };
    record.borrow_mut().queue.push_back(Happening::Event(event));
    screen.harness.run();
    screen.harness.get_by_label("Matvec q4_k 4096x4096 1");
    screen.click("Stop");
    assert_eq!(record.borrow().cancelled, [JobId(job)]);
    let kernels = &screen.app().state.kernels;
    assert!(!kernels.running && kernels.progress.is_none() && kernels.found.is_some());
}

#[test]
fn a_device_lost_while_measuring_is_measured_again_in_one_click() {
    let (mut screen, record) = desk(Start { tab: Some(Tab::Kernels), ..Start::default() });
    record.borrow_mut().silent = true;
    screen.act(Action::Bench);
    let job = JobId(record.borrow().sent.len() as u64);
    let failure = Failure { message: "device lost".into(), device_lost: true };
    let event = Event { job, kind: EventKind::Failed(failure) };
    record.borrow_mut().queue.push_back(Happening::Event(event));
    screen.harness.run();
    assert!(!screen.app().state.kernels.running);
    record.borrow_mut().silent = false;
    screen.click("Measure again");
    assert!(screen.app().state.kernels.found.is_some() && screen.app().state.notice.is_none());
}

#[test]
fn what_was_measured_is_saved_as_the_command_line_writes_it() {
    let settings = Settings { recipes: vec!["q8_0".into(), "sparse:50%".into()], rotate: true, ..Settings::default() };
    let start = Start { tab: Some(Tab::Quality), run: true, ..with_tiny() };
    let (mut screen, record) = screen([1280.0, 800.0], settings, start);
    for form in ["HTML", "JSON", "SVG"] {
        screen.click(form);
    }
    let saved = record.borrow().saved.clone();
    let names: Vec<&str> = saved.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["tiny-compressed.html", "tiny-compressed.json", "tiny-compressed.svg"]);
    let [html, json, svg] = [0, 1, 2].map(|i| String::from_utf8(saved[i].1.clone()).unwrap());
    // The page's own data is the report.
    let data = html.split("id=\"report\">").nth(1).unwrap().split("</script>").next().unwrap();
    assert_eq!(data.parse::<serde_json::Value>().unwrap(), json.parse::<serde_json::Value>().unwrap());
    let Ok(Report::Compare(found)) = serde_json::from_str(&json) else { panic!("{json}") };
    let recipes: Vec<&str> = found.variants.iter().map(|variant| variant.recipe.as_str()).collect();
    assert_eq!(recipes, ["bf16", "sparse:50%", "q8_0"], "in the order of the table");
    assert!((found.seconds - 1.0).abs() < 1e-9, "{}", found.seconds);
    let command = "tersor compare tiny --with &#39;sparse:50%&#39; q8_0 --context 256 --windows 2";
    assert!(html.contains(command), "{html}");
    // The plot that is shown.
    assert!(svg.contains("Size and divergence") && svg.matches("<circle").count() == 2, "{svg}");
    screen.click("Speed and divergence");
    screen.click("SVG");
    let last = record.borrow().saved.last().unwrap().clone();
    assert!(String::from_utf8(last.1).unwrap().contains("tokens/s"));
}

#[test]
fn kernels_are_saved_and_what_cannot_be_saved_is_said() {
    let (mut screen, record) = desk(Start { tab: Some(Tab::Kernels), ..Start::default() });
    screen.press(Modifiers::COMMAND, Key::S);
    assert!(record.borrow().saved.is_empty());
    assert!(screen.app().state.notice.clone().unwrap().text.contains("measure first"));
    screen.app().state.kernels.filter = "matvec q4_k, matmul".to_owned();
    screen.act(Action::Bench);
    screen.press(Modifiers::COMMAND, Key::S);
    screen.click("JSON");
    screen.click("SVG");
    let saved = record.borrow().saved.clone();
    let [html, json, svg] = [0, 1, 2].map(|i| String::from_utf8(saved[i].1.clone()).unwrap());
    assert_eq!(saved[0].0, "kernels-example-gpu-4000-vulkan.html");
    assert!(html.contains("tersor bench --quick --filter &#39;matvec q4_k&#39; --filter matmul"), "{html}");
    let Ok(Report::Bench(found)) = serde_json::from_str(&json) else { panic!("{json}") };
    // Digits of JSON are read to within a rounding.
    let names = |found: &Benchmark| found.findings.measurements.iter().map(|m| m.name.clone()).collect::<Vec<_>>();
    let shown = screen.app().state.kernels.found.clone().unwrap();
    assert_eq!((names(&found), &found.plan, &found.device), (names(&shown), &shown.plan, &shown.device));
    assert_eq!(svg.matches("<circle").count(), found.findings.measurements.len());
    let why = "there is no room".to_owned();
    record.borrow_mut().queue.push_back(Happening::NotSaved(why.clone()));
    screen.harness.run();
    assert_eq!(screen.app().state.notice.clone().unwrap().text, why);
}

#[test]
fn software_adapters_are_said_to_say_nothing_about_gpus() {
    let (mut screen, _) = desk(Start { tab: Some(Tab::Kernels), ..Start::default() });
    assert!(screen.harness.query_by_label_contains("say nothing about GPUs").is_none());
    screen.app().state.adapters.as_mut().unwrap().adapters[0].kind = "Cpu".to_owned();
    screen.harness.run();
    screen.harness.get_by_label_contains("say nothing about GPUs");
}

#[test]
fn where_a_head_looks_is_asked_anew_when_something_changes() {
    let (mut screen, record) = desk(Start { tab: Some(Tab::Attention), ..with_tiny() });
    let asked = |record: &Rc<RefCell<Record>>| -> Vec<Attend> {
        let attend =
            |command: &Command| if let Command::Attend(attend) = command { Some(attend.clone()) } else { None };
        record.borrow().sent.iter().filter_map(attend).collect()
    };
    let loads = |record: &Rc<RefCell<Record>>| {
        record.borrow().sent.iter().filter(|command| matches!(command, Command::Load(_))).count()
    };
    let last = |record: &Rc<RefCell<Record>>| {
        let record = record.borrow();
        JobId((record.sent.len() + record.fetched.len()) as u64)
    };
    assert!(asked(&record).is_empty(), "nothing is loaded before somebody asks");
    screen.click("Look");
    assert_eq!((asked(&record).len(), loads(&record)), (1, 1));
    let fraction = screen.app().state.attention.kept_fraction().unwrap();
    assert!((0.1..0.9).contains(&fraction), "{fraction}");
    screen.harness.get_by_label(&format!("Layer 0, head 0: {:.1} % of the visible blocks are kept", 100.0 * fraction));
    // Another head is part of the same answer, another block is another question, and the model stays loaded.
    screen.click("3");
    assert_eq!((screen.app().state.attention.head, asked(&record).len()), (3, 1));
    assert_ne!(screen.app().state.attention.kept_fraction(), Some(fraction));
    screen.click("64");
    assert_eq!((asked(&record).len(), loads(&record)), (2, 1));
    assert!(asked(&record)[1].attention.starts_with("asa:block=64,"), "{}", asked(&record)[1].attention);
    screen.harness.get_by_role_and_label(Role::Slider, "keep at most").focus();
    screen.harness.run();
    screen.press(Modifiers::NONE, Key::ArrowLeft);
    assert_eq!(asked(&record).len(), 3, "the slider asks");
    // What is changed while an answer is under way is asked when that has come, once.
    record.borrow_mut().silent = true;
    screen.act(Action::Attend);
    screen.app().state.attention.layer = 2;
    screen.act(Action::Attend);
    screen.act(Action::Attend);
    assert_eq!(asked(&record).len(), 4);
    record.borrow_mut().silent = false;
    let job = last(&record);
    record.borrow_mut().queue.push_back(Happening::Event(Event { job, kind: EventKind::Done }));
    screen.harness.run();
    assert_eq!((asked(&record).len(), asked(&record)[4].layer), (5, 2));
    assert!(!screen.app().state.is_busy());
    // A model that cannot be loaded is loaded anew the next time.
    let failure = Failure { message: "no room".into(), device_lost: true };
    record.borrow_mut().silent = true;
    screen.act(Action::Attend);
    let job = last(&record);
    record.borrow_mut().queue.push_back(Happening::Event(Event { job, kind: EventKind::Failed(failure) }));
    screen.harness.run();
    screen.act(Action::Attend);
    assert_eq!(loads(&record), 2);
}
