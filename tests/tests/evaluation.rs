//! Evaluation statistics against numpy (`golden/evaluation.py`).

use serde_json::Value;
use tersor_engine::eval::{self, Estimate};
use tersor_engine::ops::metrics::{Comparison, Likelihood};

fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/evaluation.json")).unwrap()
}

fn records(golden: &Value) -> (Vec<Comparison>, Vec<u32>) {
    let parse = |r: &Value| {
        let f = |i: usize| r[i].as_f64().unwrap() as f32;
        let u = |i: usize| r[i].as_u64().unwrap() as u32;
        let record = Comparison {
            nll: [f(0), f(1)],
            kl_divergence: f(2),
            p_target: [f(3), f(4)],
            argmax: [u(5), u(6)],
            top5_overlap: u(7),
            entropy: [f(9), f(10)],
        };
        (record, u(8))
    };
    golden["records"].as_array().unwrap().iter().map(parse).unzip()
}

fn near(what: &str, actual: f64, expected: f64) {
    assert!((actual - expected).abs() <= 1e-9 * (1.0 + expected.abs()), "{what}: {actual} for {expected}");
}

#[test]
fn statistics_are_those_of_numpy() {
    let golden = golden();
    let (records, targets) = records(&golden);
    let expected = &golden["expected"];
    let s = eval::compare(&records, &targets).unwrap();
    let estimates: [(&str, Estimate); 10] = [
        ("perplexity_a", s.perplexity_a),
        ("perplexity_b", s.perplexity_b),
        ("ln_ratio", s.ln_ratio),
        ("ratio", s.ratio),
        ("kl", s.kl),
        ("delta_p", s.delta_p),
        ("delta_p_rms", s.delta_p_rms),
        ("same_top", s.same_top),
        ("top5_overlap", s.top5_overlap),
        ("flips", s.flips),
    ];
    for (name, e) in estimates {
        near(name, e.value, expected[name][0].as_f64().unwrap());
        near(name, e.error, expected[name][1].as_f64().unwrap());
    }
    let numbers = [
        ("nll_correlation", s.nll_correlation),
        ("kl_median", s.kl_median),
        ("kl_99", s.kl_99),
        ("kl_99_9", s.kl_99_9),
        ("kl_max", s.kl_max),
        ("flips_to_wrong", s.flips_to_wrong),
        ("accuracy_a", s.accuracy_a),
        ("accuracy_b", s.accuracy_b),
        ("entropy_a", s.entropy_a),
        ("entropy_b", s.entropy_b),
    ];
    for (name, value) in numbers {
        near(name, value, expected[name].as_f64().unwrap());
    }
    // Resampling, which knows no formula for standard errors, agrees.
    let bootstrap =
        [("ln_ratio", s.ln_ratio.error), ("perplexity_a", s.perplexity_a.error), ("delta_p_rms", s.delta_p_rms.error)];
    for (name, error) in bootstrap {
        let resampled = expected["bootstrap"][name].as_f64().unwrap();
        assert!((error / resampled - 1.0).abs() < 0.1, "{name}: {error} for {resampled}");
    }
}

#[test]
fn one_model_has_the_perplexity_it_has_in_a_comparison() {
    let (records, targets) = records(&golden());
    let single = |r: &Comparison| Likelihood {
        nll: r.nll[1],
        p_target: r.p_target[1],
        argmax: r.argmax[1],
        entropy: r.entropy[1],
    };
    let alone = eval::perplexity(&records.iter().map(single).collect::<Vec<_>>(), &targets).unwrap();
    let both = eval::compare(&records, &targets).unwrap();
    assert_eq!(alone.perplexity, both.perplexity_b);
    near("accuracy", alone.accuracy, both.accuracy_b);
    near("entropy", alone.entropy, both.entropy_b);
    // Two bits a token, four bytes a token: half a bit a byte.
    let bits =
        eval::Perplexity { nll: Estimate { value: 2.0 * std::f64::consts::LN_2, error: 0.0 }, positions: 10, ..alone };
    near("bits per byte", bits.bits_per_byte(40), 0.5);
}

#[test]
fn embedding_drift_is_that_of_numpy() {
    let golden = golden();
    let r = &golden["retrieval"];
    let embeddings = |key: &str| -> Vec<Vec<f32>> {
        let rows = r[key].as_array().unwrap().iter();
        rows.map(|row| row.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()).collect()
    };
    let d = eval::embedding_drift(&embeddings("a"), &embeddings("b")).unwrap();
    for (name, value) in [
        ("cosine_mean", d.cosine_mean),
        ("cosine_median", d.cosine_median),
        ("cosine_min", d.cosine_min),
        ("recall", d.recall),
        ("rank_correlation", d.rank_correlation),
    ] {
        near(name, value, r[name].as_f64().unwrap());
    }
    let list =
        |key: &str| -> Vec<f64> { r["tied"][key].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect() };
    let tied = eval::rank_correlation(&list("x"), &list("y")).unwrap();
    near("ties", tied, r["tied"]["rank_correlation"].as_f64().unwrap());
}
