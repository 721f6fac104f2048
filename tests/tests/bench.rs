//! The benchmark: its probes are correct in every tier, and the session measures, reports, refuses and stops.

use tersor_engine::bench::model::ModelPlan;
use tersor_engine::gpu::{Gpu, Purpose};
use tersor_engine::ops::probe::{self, COPY_STEPS, FMA_CHAINS, Fma};
use tersor_engine::reference;
use tersor_engine::session::report::Benchmark;
use tersor_engine::session::{Bench, BenchModel, Calibration, Command, EventKind, Report};
use tersor_tests::kernel::{Random, gpus};
use tersor_tests::talk::{Talk, options, tiny};

const GUARD: u32 = 0xdead_beef;

fn words(
    gpu: &Gpu,
    n: u32,
    run: impl FnOnce(&mut tersor_engine::gpu::Recorder, &tersor_engine::gpu::Buffer),
) -> Vec<u32> {
    let y = gpu.upload("y", &vec![GUARD; n as usize], Purpose::Activations).unwrap();
    let mut rec = gpu.record();
    run(&mut rec, &y);
    rec.submit().unwrap();
    pollster::block_on(gpu.read(&y, 0, n.into())).unwrap()
}

#[test]
fn the_probes_are_their_twins() {
    for gpu in gpus() {
        let mut random = Random::new(7);
        for steps in [1, 129, 5000] {
            let data: Vec<u32> = (0..4 * steps).map(|_| random.word()).collect();
            let x = gpu.upload("x", &data, Purpose::Activations).unwrap();
            for each in COPY_STEPS {
                // A step more than is copied: it must stay as it is.
                let got = words(&gpu, 4 * steps + 4, |rec, y| probe::copy(rec, steps, each, x.all(), y.all()).unwrap());
                assert!(
                    got[..data.len()] == data[..] && got[data.len()..] == [GUARD; 4],
                    "{steps} steps, {each} a lane"
                );
            }
        }
        for (lanes, each) in [(1, 4), (130, 8), (257, 12)] {
            let data: Vec<u32> = (0..4 * lanes * each).map(|_| random.word()).collect();
            let x = gpu.upload("x", &data, Purpose::Activations).unwrap();
            let got = words(&gpu, lanes + 1, |rec, y| probe::read(rec, lanes, each, x.all(), y.all()).unwrap());
            let expected = reference::probe::read(&data, lanes as usize, each as usize);
            assert!(
                got[..lanes as usize] == expected[..] && got[lanes as usize] == GUARD,
                "{lanes} lanes, {each} steps"
            );
        }
        for chains in FMA_CHAINS {
            for fused in [true, false] {
                let what = Fma { lanes: 200, rounds: 3, chains, fused, factor: 0.75, addend: 0.5 };
                let got = words(&gpu, 201, |rec, y| probe::fma(rec, &what, y.all()).unwrap());
                assert_eq!(got[200], GUARD);
                for (lane, (got, expected)) in got.iter().zip(reference::probe::fma(&what)).enumerate() {
                    let got = f32::from_bits(*got);
                    assert!((got - expected).abs() < 1e-5 * expected, "{what:?} lane {lane}: {got}, not {expected}");
                }
            }
        }
        let (x, y) = (gpu.scratch("x", 64).unwrap(), gpu.scratch("y", 64).unwrap());
        let mut rec = gpu.record();
        assert!(probe::read(&mut rec, 1, 5, x.all(), y.all()).unwrap_err().to_string().contains("multiple of 4"));
        assert!(probe::copy(&mut rec, 5, 1, x.all(), y.all()).unwrap_err().to_string().contains("holds 64 bytes"));
        assert!(probe::copy(&mut rec, 4, 3, x.all(), y.all()).is_err());
    }
}

fn plan(filter: &[&str]) -> Bench {
    Bench { filter: filter.iter().map(|f| (*f).to_owned()).collect(), ..Bench::default() }
}

/// What was found in the end, and what was shown on the way.
fn measured(talk: &Talk, plan: Bench) -> (Benchmark, Vec<Benchmark>) {
    let bench = |report: Report| match report {
        Report::Bench(found) => *found,
        _ => panic!("another report"),
    };
    let (mut last, mut parts) = (None, Vec::new());
    for kind in talk.ask(Command::Bench(plan)) {
        match kind {
            EventKind::Partial(report) => parts.push(bench(*report)),
            EventKind::Report(report) => last = Some(bench(*report)),
            EventKind::Failed(failure) => panic!("{}", failure.message),
            _ => {}
        }
    }
    (last.expect("a report"), parts)
}

/// One test, so that measurements do not disturb one another.
#[test]
fn a_session_measures_reports_refuses_and_stops() {
    let talk = Talk::start(options());
    let wanted = plan(&[
        "matvec q4_0 576x576 1",
        "matvec sparse:50% 576x576 1",
        "matvec bf16+svd:rank=16 2048x2048 1",
        "attention-decode 9/3x64 1024",
    ]);
    let (found, parts) = measured(&talk, wanted.clone());
    // Rows come one by one, and stay as they came.
    assert_eq!(parts.len(), found.findings.measurements.len());
    for (count, part) in parts.iter().enumerate() {
        assert_eq!(part.findings.measurements, found.findings.measurements[..count]);
        assert_eq!((part.findings.ceilings, &part.plan), (found.findings.ceilings, &found.plan));
    }
    assert_eq!(found.plan, wanted);
    assert!(found.findings.skipped.is_empty(), "{:?}", found.findings.skipped);
    let names: Vec<&str> = found.findings.measurements.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "matvec q4_0 576x576 1",
            "matvec sparse:50% 576x576 1",
            "matvec bf16+svd:rank=16 2048x2048 1",
            "attention-decode 9/3x64 1024"
        ]
    );
    let c = found.findings.ceilings;
    for value in
        [c.copy_gb_per_s, c.read_gb_per_s, c.fma_gflop_per_s, c.dispatch_us, c.record_us, c.submit_us, c.readback_us]
    {
        assert!(value > 0.0 && value.is_finite(), "{c:?}");
    }
    for m in &found.findings.measurements {
        let t = m.times;
        assert!(0.0 < t.q1_us && t.q1_us <= t.median_us && t.median_us <= t.q3_us, "{m:?}");
        assert!(t.samples >= 20 || t.median_us > 1e5, "{m:?}");
        assert!((m.gb_per_s - 1e-3 * m.bytes as f64 / t.median_us).abs() < 1e-6 * m.gb_per_s, "{m:?}");
        assert!(m.roof_fraction > 0.0 && m.copies > 1, "{m:?}");
    }
    let [q4_0, sparse, low_rank, attention] = &found.findings.measurements[..] else { panic!() };
    // 4.5 bits, x and y of 576 floats.
    assert_eq!((q4_0.bytes, q4_0.operations), (576 * 576 * 9 / 16 + 2 * 4 * 576, 2 * 576 * 576));
    assert_eq!(sparse.operations, 576 * 576, "only what is kept");
    assert!(sparse.bits < 32.0 && sparse.bytes < 576 * 576 * 4);
    assert_eq!(low_rank.operations, 2 * (2048 * 2048 + 16 * 4096));
    // Keys and values of three heads in f16, q and o of nine in f32.
    assert_eq!(attention.bytes, 2 * 1024 * 3 * 64 * 2 + 2 * 9 * 64 * 4);
    assert_eq!(attention.operations, 4 * 9 * 64 * 1024);
    let json = serde_json::to_value(Report::Bench(Box::new(found.clone()))).unwrap();
    assert_eq!(
        (&json["schema"], &json["measurements"][0]["name"]),
        (&"tersor.bench/1".into(), &"matvec q4_0 576x576 1".into())
    );
    let Report::Bench(back) = serde_json::from_value(json).unwrap() else { panic!() };
    assert_eq!(*back, found);

    let failure = talk.failure(Command::Bench(plan(&["no such kernel"])));
    assert!(failure.message.contains("no such kernel") && failure.message.contains("--list"), "{}", failure.message);

    let job = talk.session.send(Command::Bench(Bench::default()));
    assert!(matches!(talk.next(job), EventKind::Progress(_)));
    talk.session.cancel(job);
    assert!(matches!(talk.rest(job).last(), Some(EventKind::Cancelled)));
}

#[test]
fn a_model_is_measured_end_to_end() {
    let talk = Talk::start(options());
    let plan = ModelPlan { contexts: vec![16, 40, 80], tokens: 4, rounds: 2, quick: false };
    let command = |plan| {
        let (recipe, rotation, calibration) = (None, None, Calibration::default());
        Command::BenchModel(BenchModel { source: tiny(), recipe, rotation, calibration, plan })
    };
    let Report::BenchModel(found) = talk.report(command(plan.clone())) else { panic!("another report") };
    let f = &found.findings;
    assert_eq!(found.plan, plan);
    assert_eq!(f.lengths.iter().map(|at| at.context).collect::<Vec<_>>(), plan.contexts);
    for at in &f.lengths {
        assert_eq!(at.decode.samples, 8, "four tokens in each of two rounds");
        assert!(at.prefill_seconds > 0.0 && at.decode.median_us > 0.0 && at.roof_fraction > 0.0, "{at:?}");
        assert!((at.gb_per_s - 1e-3 * at.bytes as f64 / at.decode.median_us).abs() < 1e-6 * at.gb_per_s, "{at:?}");
    }
    let fit = f.fit.expect("three lengths");
    assert!((0.0..=1.0).contains(&fit.r_squared) && fit.bytes_per_position > 0.0, "{fit:?}");
    assert!(f.load_seconds > 0.0 && f.compile_seconds > 0.0 && f.pipelines > 0, "{f:?}");
    let host = f.host;
    assert!(host.record_us > 0.0 && host.submit_us > 0.0 && host.wgpu_us > 0.0, "{host:?}");
    assert_eq!((host.context, host.dispatches), (16, f.lengths[0].dispatches));
    assert!(f.memory.peak >= f.weight_bytes + f.memory.kv_cache, "{:?}", f.memory);
    let failure = talk.failure(command(ModelPlan { contexts: vec![1_000_000], ..plan }));
    assert!(failure.message.contains("1000"), "{}", failure.message);
}
