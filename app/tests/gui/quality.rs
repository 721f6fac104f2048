//! What a person does on the quality page.

use egui_kittest::kittest::Queryable as _;
use tersor::gui::client::Happening;
use tersor::gui::start::Start;
use tersor::gui::state::{Action, Settings, Tab, Trade};
use tersor_engine::session::Report;

use super::answers::report;
use super::screen::{Screen, desk, screen, with_tiny};

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
fn what_was_measured_is_saved_as_the_command_line_writes_it() {
    let settings = Settings { recipes: vec!["q8_0".into(), "sparse:50%".into()], rotate: true, ..Settings::default() };
    let start = Start { tab: Some(Tab::Quality), run: true, ..with_tiny() };
    let (mut screen, record) = screen([1280.0, 800.0], settings, start);
    for form in ["HTML", "JSON", "SVG", "PNG"] {
        screen.click(form);
    }
    let saved = record.borrow().saved.clone();
    let names: Vec<&str> = saved.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["html", "json", "svg", "png"].map(|ending| format!("tiny-compressed.{ending}")));
    assert_eq!(saved[2].1, saved[3].1, "the picture is that of the drawing");
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
fn anothers_report_is_laid_beside_ones_own_and_taken_away() {
    let start = Start { tab: Some(Tab::Quality), run: true, ..with_tiny() };
    let (mut screen, record) = desk(start);
    screen.click("Lay a report beside");
    assert_eq!(record.borrow().reports, 1);
    let arrive = |screen: &mut Screen, name: &str, bytes: Vec<u8>| {
        record.borrow_mut().queue.push_back(Happening::Report(name.to_owned(), bytes));
        screen.harness.run();
    };
    arrive(&mut screen, "laptop.json", report(&["q3_k"], "Other GPU 9000 (Metal)"));
    let state = &screen.app().state;
    let rows: Vec<_> = state.quality.shown().iter().map(|row| (row.variant.recipe.clone(), row.report)).collect();
    let own = |name: &str| (name.to_owned(), None);
    let theirs = |name: &str| (name.to_owned(), Some(0));
    assert_eq!(rows, [own("bf16"), own("q4_k"), theirs("bf16"), theirs("q3_k")]);
    // Whose rows they are, and what was otherwise.
    screen.harness.get_by_label_contains("laptop  ·  Other GPU 9000 bf16");
    screen.harness.get_by_label_contains("Not as here: another text, another device");
    // The plot has their point, marked; what is saved as a report is one's own.
    screen.click("SVG");
    screen.click("JSON");
    let saved: Vec<String> =
        record.borrow().saved.iter().map(|(_, bytes)| String::from_utf8(bytes.clone()).unwrap()).collect();
    assert_eq!((saved[0].matches("<circle").count(), saved[0].matches("<path").count()), (1, 1), "{}", saved[0]);
    assert!(saved[0].contains("q3_k (laptop)"), "{}", saved[0]);
    assert!(!saved[1].contains("q3_k"));

    // The same file again takes its own place, another one stands behind it.
    arrive(&mut screen, "laptop.json", report(&["q2_k"], "Other GPU 9000 (Metal)"));
    arrive(&mut screen, "phone.json", report(&["q5_k"], "Small GPU (Vulkan)"));
    assert_eq!(screen.app().state.quality.shown().len(), 6);
    // What is no report changes nothing and says so.
    let mut cut = report(&["q2_k"], "Other GPU");
    cut.truncate(1000);
    arrive(&mut screen, "cut.json", cut);
    let notice = screen.app().state.notice.clone().unwrap();
    assert!(notice.text.starts_with("cut.json is damaged, or no report at all: EOF"), "{}", notice.text);
    assert_eq!(screen.app().state.quality.shown().len(), 6);
    screen.click("Take laptop.json away");
    let names: Vec<String> = screen.app().state.quality.beside.iter().map(|beside| beside.name.clone()).collect();
    assert_eq!(names, ["phone.json"]);
}

#[test]
fn a_report_is_shown_without_a_model() {
    let (mut screen, record) = desk(Start { tab: Some(Tab::Quality), ..Start::default() });
    screen.harness.get_by_label("Lay a report beside");
    let happening = Happening::Report("a.json".into(), report(&["q3_k", "nf4"], "Other GPU 9000 (Metal)"));
    record.borrow_mut().queue.push_back(happening);
    screen.act(Action::Show(Tab::Models));
    assert_eq!(screen.app().state.tab, Tab::Quality, "it is shown where it is seen");
    screen.harness.get_by_label_contains("Other GPU 9000 bf16");
    screen.harness.get_by_label("Take a.json away");
}
