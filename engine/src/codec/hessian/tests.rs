use serde_json::Value;

use super::*;
use crate::codec::tests::Lcg;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/hessian.json");

/// Rounds to a grid of 16 levels.
struct Round(f32);

impl Round {
    fn of(&self, w: f32) -> f32 {
        (w / self.0).round_ties_even().clamp(-8.0, 7.0) * self.0
    }
}

impl Replace for Round {
    fn column(&mut self, _: usize, weights: &mut [f32]) {
        weights.iter_mut().for_each(|w| *w = self.of(*w));
    }
}

/// Statistics of inputs whose neighbours are alike, and of which column 3 is always 0.
fn calibration(cols: usize, tokens: usize) -> Calibration {
    let mut lcg = Lcg::new(7);
    let mut moment = vec![0.0f64; cols * cols];
    for _ in 0..tokens {
        let mut x: Vec<f64> =
            (0..cols).map(|i| f64::from(lcg.gaussian()) * (1.0 + (i * 37 % 11) as f64 / 4.0)).collect();
        (1..cols).for_each(|i| x[i] += 0.9 * x[i - 1]);
        x[3] = 0.0;
        for (row, a) in moment.chunks_exact_mut(cols).zip(&x) {
            row.iter_mut().zip(&x).for_each(|(m, b)| *m += a * b / tokens as f64);
        }
    }
    let moment = moment.into_iter().map(|v| v as f32).collect();
    Calibration::new(tokens as u64, vec![0.0; cols], moment).unwrap()
}

fn weights(n: usize) -> Vec<f32> {
    let mut lcg = Lcg::new(11);
    (0..n).map(|_| lcg.gaussian()).collect()
}

fn floats(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

#[test]
fn factors_and_replacements_are_those_of_numpy() {
    let golden: Value = serde_json::from_slice(&std::fs::read(GOLDEN).unwrap()).unwrap();
    let single = |key: &str| floats(&golden[key]).into_iter().map(|v| v as f32).collect::<Vec<f32>>();
    let cols = golden["cols"].as_u64().unwrap() as usize;
    let calibration = Calibration::new(96, vec![0.0; cols], single("moment")).unwrap();
    for (key, order) in [("stored", Order::Stored), ("energy", Order::Energy)] {
        let case = &golden[key];
        let hessian = Hessian::new(&calibration, case["damping"].as_f64().unwrap(), order).unwrap();
        let columns: Vec<f64> = hessian.order().iter().map(|&c| c as f64).collect();
        assert_eq!(columns, floats(&case["order"]), "{key}");
        let factor = hessian.factor.as_ref().unwrap();
        let largest = factor.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        for (i, (found, expected)) in factor.iter().zip(floats(&case["u"])).enumerate() {
            let error = (f64::from(*found) - expected).abs();
            assert!(
                error <= 1e-6 * f64::from(largest),
                "{key}: U[{}, {}] = {found}, not {expected}",
                i / cols,
                i % cols
            );
        }
        let mut replaced = single("weights");
        hessian.replace(&mut replaced, cols, &mut Round(golden["step"].as_f64().unwrap() as f32));
        let replaced: Vec<f64> = replaced.into_iter().map(f64::from).collect();
        assert_eq!(replaced, floats(&case["replaced"]), "{key}");
    }
}

/// More columns than a block has, some left over: against the loop without blocks, in f64.
#[test]
fn blocks_change_nothing() {
    let (rows, cols) = (3, 2 * BLOCK + 45);
    let calibration = calibration(cols, 400);
    let given = weights(rows * cols);
    for (order, group) in [(Order::Stored, 4), (Order::Energy, 1), (Order::Groups(16), 16), (Order::Stored, 300)] {
        let hessian = Hessian::new(&calibration, 0.05, order).unwrap();
        let factor = hessian.factor.as_ref().unwrap();
        let mut expected: Vec<f64> = given.iter().map(|&w| w.into()).collect();
        for row in expected.chunks_exact_mut(cols) {
            let mut now: Vec<f64> = hessian.order().iter().map(|&c| row[c]).collect();
            for i in 0..cols {
                let replaced = f64::from(Round(0.3).of(now[i] as f32));
                let error = (now[i] - replaced) / f64::from(factor[i * cols + i]);
                now[i] = replaced;
                (i + 1..cols).for_each(|j| now[j] -= error * f64::from(factor[i * cols + j]));
            }
            hessian.order().iter().zip(now).for_each(|(&c, w)| row[c] = w);
        }
        let mut found = given.clone();
        hessian.replace(&mut found, group, &mut Round(0.3));
        // A weight in the middle between two levels may go either way, and others then follow it.
        let same = found.iter().zip(&expected).filter(|(a, b)| (f64::from(**a) - **b).abs() < 1e-6).count();
        assert!(same * 100 >= found.len() * 99, "{order:?}: {same} of {}", found.len());
    }
}

#[test]
fn errors_are_made_up_for() {
    let (rows, cols) = (16, 200);
    let calibration = calibration(cols, 600);
    let given = weights(rows * cols);
    let loss = |hessian: &Hessian| {
        let mut replaced = given.clone();
        hessian.replace(&mut replaced, 8, &mut Round(0.5));
        let error: Vec<f32> = given.iter().zip(&replaced).map(|(a, b)| a - b).collect();
        calibration.loss(&error)
    };
    let rounded = loss(&Hessian::identity(cols));
    for order in [Order::Stored, Order::Energy, Order::Groups(8)] {
        let compensated = loss(&Hessian::new(&calibration, 0.01, order).unwrap());
        assert!(compensated < 0.35 * rounded, "{order:?}: {compensated} of {rounded}");
    }
}

#[test]
fn nothing_known_means_nothing_made_up_for() {
    let given = weights(3 * 70);
    let silent = Calibration::new(5, vec![0.0; 70], vec![0.0; 70 * 70]).unwrap();
    for hessian in [Hessian::identity(70), Hessian::new(&silent, 0.01, Order::Energy).unwrap()] {
        let mut found = given.clone();
        hessian.replace(&mut found, 16, &mut Round(0.25));
        let expected: Vec<f32> = given.iter().map(|w| Round(0.25).of(*w)).collect();
        assert_eq!(found, expected);
    }
}

/// Groups come at every `group`-th column, see what was made up for so far, and together cover all columns.
#[test]
fn groups_are_told_beforehand() {
    struct Watch {
        expected: Vec<Vec<f32>>,
        seen: usize,
        /// Where the column that no other makes up for is.
        dead: usize,
    }
    impl Replace for Watch {
        fn group(&mut self, group: Group) {
            assert_eq!(group.first(), self.seen);
            assert_eq!(group.rows().len(), 2);
            self.expected = group.rows().map(<[f32]>::to_vec).collect();
            assert_eq!(self.expected[0].len(), group.len());
        }
        fn column(&mut self, at: usize, weights: &mut [f32]) {
            assert_eq!(at, self.seen);
            let within = at % 24;
            if within == 0 || at == self.dead {
                assert_eq!(*weights, [self.expected[0][within], self.expected[1][within]]);
            } else {
                assert_ne!(*weights, [self.expected[0][within], self.expected[1][within]]);
            }
            weights.fill(0.0);
            self.seen += 1;
        }
    }
    let cols = 150;
    let hessian = Hessian::new(&calibration(cols, 300), 0.01, Order::Groups(24)).unwrap();
    let dead = hessian.order().iter().position(|&c| c == 3).unwrap();
    let mut watch = Watch { expected: Vec::new(), seen: 0, dead };
    let mut band = weights(2 * cols);
    hessian.replace(&mut band, 24, &mut watch);
    assert_eq!(watch.seen, cols);
    assert!(band.iter().all(|w| *w == 0.0));
}

#[test]
fn groups_stay_together() {
    let energies = [1.0, 2.0, 9.0, 8.0, 3.0, 3.0, 100.0];
    assert_eq!(ordered(&energies, Order::Groups(2)), [2, 3, 4, 5, 1, 0, 6]);
    assert_eq!(ordered(&energies, Order::Energy), [6, 2, 3, 4, 5, 1, 0]);
    assert_eq!(ordered(&energies, Order::Stored), [0, 1, 2, 3, 4, 5, 6]);
}

#[test]
fn moments_that_are_none_are_refused() {
    let calibration = Calibration::new(1, vec![0.0; 2], vec![1.0, 50.0, 50.0, 1.0]).unwrap();
    let error = Hessian::new(&calibration, 0.01, Order::Stored).unwrap_err().to_string();
    assert!(error.contains("negative eigenvalues"), "{error}");
    // Fewer inputs than columns: singular, which is what the damping is for.
    let rank_one = Calibration::new(1, vec![1.0; 3], vec![1.0; 9]).unwrap();
    let hessian = Hessian::new(&rank_one, 0.01, Order::Stored).unwrap();
    assert!(hessian.diagonal().iter().all(|u| u.is_finite() && *u > 0.0));
    // The empty matrix has nothing to replace.
    hessian.replace(&mut [], 4, &mut Round(1.0));
}
