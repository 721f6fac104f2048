//! A language model end to end: prefill and decode tokens a second, dispatches and bytes of a token, host time.
//!
//! `cargo run --release -p tersor-benches --bin end_to_end -- MODEL.gguf [RECIPE] [--prompt N] [--decode N] [--rounds N] [--json]`
//!
//! Each round runs a prompt of N tokens into an empty context and then decodes N tokens greedily, reading each back. Pipelines are
//! warm. Printed are medians over the rounds; compare within one run, or with a peer that ran alternately (`benches/peers`).

use std::time::Instant;

use tersor_engine::codec::Recipe;
use tersor_engine::format::Checkpoint;
use tersor_engine::gpu::{Gpu, GpuOptions, Purpose};
use tersor_engine::model::{Config, Context, Decoder, Weights};
use tersor_engine::ops::linear::Rows;
use tersor_engine::ops::sample::{Sampler, Sampling};
use tersor_engine::progress::Monitor;

type Error = Box<dyn std::error::Error>;

struct Args {
    model: String,
    recipe: Option<String>,
    prompt: u32,
    decode: u32,
    rounds: u32,
    json: bool,
}

fn args() -> Result<Args, Error> {
    let mut found = Args { model: String::new(), recipe: None, prompt: 128, decode: 32, rounds: 5, json: false };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || -> Result<u32, Error> { Ok(args.next().ok_or("a number is missing")?.parse()?) };
        match arg.as_str() {
            "--prompt" => found.prompt = number()?.max(1),
            "--decode" => found.decode = number()?.max(1),
            "--rounds" => found.rounds = number()?.max(1),
            "--json" => found.json = true,
            _ if found.model.is_empty() => found.model = arg,
            _ => found.recipe = Some(arg),
        }
    }
    if found.model.is_empty() {
        return Err("which model? (a GGUF or safetensors file, or a folder)".into());
    }
    Ok(found)
}

/// What one round took, in seconds.
struct Round {
    prefill: f64,
    decode: f64,
    /// Of decoding: recording and submitting on the host.
    host: f64,
    dispatches: u64,
}

fn round(decoder: &Decoder, context: &mut Context, args: &Args) -> Result<Round, Error> {
    let gpu = decoder.gpu();
    let vocab = decoder.config().vocab;
    let sampler = Sampler::new(gpu, 1, 1)?;
    let logits = gpu.storage("logits", 4 * u64::from(vocab), Purpose::Activations)?;
    let prompt: Vec<u32> = (0..args.prompt).map(|i| (i * 977 + 13) % vocab).collect();
    context.truncate(0);
    let begin = Instant::now();
    let (mut rec, mut row) = pollster::block_on(decoder.prefill(context, &prompt, &Monitor::none()))?;
    let mut found = Round { prefill: 0.0, decode: 0.0, host: 0.0, dispatches: 0 };
    let mut start = begin;
    for step in 0..=args.decode {
        let host = Instant::now();
        if step > 0 {
            rec = gpu.record();
            decoder.forward(&mut rec, context, sampler.records(), 0, 1, None)?;
        }
        decoder.logits(&mut rec, context, row, 1, Rows::new(&logits, vocab))?;
        sampler.sample(&mut rec, &Sampling::default(), &logits, [0, vocab], 0, context.len(), 0)?;
        found.dispatches = rec.dispatches();
        rec.submit()?;
        if step > 0 {
            found.host += host.elapsed().as_secs_f64();
        }
        pollster::block_on(sampler.read(gpu, 0))?;
        if step == 0 {
            found.prefill = begin.elapsed().as_secs_f64();
            start = Instant::now();
        }
        row = 0;
        rec = gpu.record();
    }
    found.decode = start.elapsed().as_secs_f64();
    Ok(found)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<(), Error> {
    let args = args()?;
    let gpu = pollster::block_on(Gpu::new(GpuOptions::from_env()?))?;
    let checkpoint = Checkpoint::open(args.model.as_ref())?;
    let config = Config::read(&checkpoint)?;
    let recipe = args.recipe.as_deref().map(Recipe::parse).transpose()?;
    let weights = Weights::new(&checkpoint, &config, recipe, None)?;
    let monitor = Monitor::none();
    let positions = args.prompt + args.decode;
    let begin = Instant::now();
    let load = Decoder::load(&gpu, config, weights, checkpoint.name(), positions, &monitor);
    let decoder = pollster::block_on(load)?.0;
    let loaded = begin.elapsed().as_secs_f64();
    let mut context = Context::new(&decoder, positions)?;
    let begin = Instant::now();
    round(&decoder, &mut context, &args)?;
    let first = begin.elapsed().as_secs_f64();
    let compiled = gpu.compiled();
    let rounds = (0..args.rounds).map(|_| round(&decoder, &mut context, &args)).collect::<Result<Vec<_>, _>>()?;
    let steps = f64::from(args.decode);
    let prefill = f64::from(args.prompt) / median(rounds.iter().map(|r| r.prefill).collect());
    let decode = steps / median(rounds.iter().map(|r| r.decode).collect());
    let host = 1e6 * median(rounds.iter().map(|r| r.host).collect()) / steps;
    let dispatches = rounds[0].dispatches;
    let weights = decoder.weight_bytes();
    if args.json {
        println!(
            "{{\"adapter\":{:?},\"prompt\":{},\"decode\":{},\"prefill_tokens_per_second\":{prefill},\
             \"decode_tokens_per_second\":{decode},\"dispatches_per_token\":{dispatches},\
             \"host_us_per_token\":{host},\"weight_bytes\":{weights}}}",
            gpu.name(),
            args.prompt,
            args.decode
        );
        return Ok(());
    }
    println!(
        "{} {:?}, {} with {}",
        gpu.name(),
        gpu.tier(),
        checkpoint.name(),
        args.recipe.as_deref().unwrap_or("its own codecs")
    );
    println!(
        "load {loaded:.2} s, first round with compiling {first:.2} s ({compiled} pipelines, {} after)",
        gpu.compiled()
    );
    println!("prefill {:.1} tok/s ({} tokens)", prefill, args.prompt);
    println!("decode  {:.1} tok/s ({} tokens after them)", decode, args.decode);
    println!(
        "a decoded token: {dispatches} dispatches, {host:.0} µs on the host, {:.1} MB of weights ({:.2} GB/s)",
        weights as f64 / 1e6,
        weights as f64 * decode / 1e9
    );
    Ok(())
}
