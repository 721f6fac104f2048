//! `tersor run`: text from a model, once or in conversation.

use std::io::{BufRead as _, IsTerminal as _, Read as _};

use anyhow::{Context as _, Result, bail};
use tersor_engine::progress::Cancelled;
use tersor_engine::session::report::{Generated, Loaded, Speed, Stop};
use tersor_engine::session::{Command, Generate, Input, Load, Message, Report, Role, Sampling, Slot};

use super::client::Client;
use super::{Context, Encoding, out};
use crate::report::{self, text::printable};
use crate::units::{bytes, significant};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A name of `tersor fetch`, a file, a folder, or a Hugging Face id
    model: String,
    /// Continue this text as it stands; - reads it from standard input
    #[arg(long, conflicts_with = "chat", required_unless_present = "chat")]
    prompt: Option<String>,
    /// Hold a conversation: each line of standard input is a message
    #[arg(long)]
    chat: bool,
    /// The system message of a conversation
    #[arg(long, requires = "chat", value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    encoding: Encoding,
    /// Generate at most this many tokens
    #[arg(long, default_value_t = 256)]
    tokens: u32,
    #[command(flatten)]
    attention: super::Attention,
    /// Positions the KV cache has room for
    #[arg(long, value_name = "TOKENS")]
    context: Option<u32>,
    /// 0 takes the most likely token; else logits are divided by it before drawing
    #[arg(long, default_value_t = 0.0, value_parser = at_least_zero)]
    temperature: f32,
    /// Draw from the k most likely tokens; 0 is all
    #[arg(long, default_value_t = 0)]
    top_k: u32,
    /// Draw from the most likely tokens that together reach this probability
    #[arg(long, default_value_t = 1.0, value_parser = fraction)]
    top_p: f32,
    /// Draw from tokens at least this fraction as likely as the most likely one
    #[arg(long, default_value_t = 0.0, value_parser = fraction)]
    min_p: f32,
    /// Makes tokens that occurred less likely; 1 does nothing
    #[arg(long, default_value_t = 1.0, value_parser = at_least_zero)]
    repetition_penalty: f32,
    /// Seed of the random numbers
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// End the reply when this text appears; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
}

fn at_least_zero(text: &str) -> Result<f32, String> {
    let value: f32 = text.parse().map_err(|_| "not a number".to_owned())?;
    if value >= 0.0 && value.is_finite() { Ok(value) } else { Err("must be 0 or more".to_owned()) }
}

fn fraction(text: &str) -> Result<f32, String> {
    at_least_zero(text).and_then(|v| if v <= 1.0 { Ok(v) } else { Err("must be between 0 and 1".to_owned()) })
}

const SLOT: Slot = Slot(0);

pub fn run(args: &Args, context: &Context) -> Result<()> {
    let source = context.source(&args.model)?;
    let client = context.client()?;
    let load = Load {
        slot: SLOT,
        source,
        recipe: args.encoding.recipe()?,
        rotation: args.encoding.rotation(),
        calibration: args.encoding.calibration.read()?,
        context: args.context,
        attention: args.attention.policy.clone(),
    };
    let Some(Report::Load(loaded)) = client.run(Command::Load(load), |_| Ok(()))? else {
        bail!("the engine did not say what it loaded")
    };
    tell(&loaded, args.encoding.recipe.as_deref());
    if args.chat {
        return converse(args, context, &client, &loaded);
    }
    let prompt = match args.prompt.as_deref() {
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read the prompt from standard input")?;
            text
        }
        prompt => prompt.unwrap_or_default().to_owned(),
    };
    let report = generate(args, &client, Input::Prompt(prompt))?;
    context.write_json(Some(&Report::Generate(report)))
}

/// Says on standard error what runs, so that standard output holds the text alone.
fn tell(loaded: &Loaded, recipe: Option<&str>) {
    let weights = &loaded.weights;
    out::note(format_args!(
        "{}: {} of weights, {:.2} bits each, {} on the GPU, context {}; {} (tier {})",
        loaded.model.name,
        bytes(weights.bytes),
        weights.bits_per_weight,
        bytes(loaded.memory.peak),
        loaded.context,
        loaded.device.name,
        loaded.device.tier
    ));
    if let Some(recipe) = recipe {
        report::fallbacks(recipe, weights).iter().for_each(out::note);
    }
}

fn generate(args: &Args, client: &Client, input: Input) -> Result<Generated> {
    let command = Generate {
        slot: SLOT,
        input,
        sampling: Sampling {
            temperature: args.temperature,
            top_k: args.top_k,
            top_p: args.top_p,
            min_p: args.min_p,
            repetition_penalty: args.repetition_penalty,
            seed: args.seed,
        },
        tokens: args.tokens,
        stop: args.stop.clone(),
    };
    let report = client.run(Command::Generate(command), |text| out::print(printable(text)))?;
    out::line("")?;
    let Some(Report::Generate(found)) = report else { bail!("the engine gave no text") };
    tell_speed(&found.speed, found.generation.stop);
    if let Some(attention) = &found.attention {
        let percent = 100.0 * attention.kept_fraction;
        out::note(format_args!("[{}: {percent:.1} % of the prompt's attention blocks computed]", attention.policy));
    }
    Ok(found)
}

fn tell_speed(speed: &Speed, stop: Stop) {
    let why = match stop {
        Stop::EndOfText => "",
        Stop::StopString => "; stopped at a stop text",
        Stop::Length => "; stopped at --tokens",
        Stop::Context => "; the context is full",
    };
    out::note(format_args!(
        "[prompt {} tokens, {} tok/s; first token {:.0} ms; then {} tokens, {} tok/s{why}]",
        speed.prefill_tokens,
        significant(speed.prefill_tokens_per_second),
        speed.first_token_ms,
        speed.decode_tokens,
        significant(speed.decode_tokens_per_second)
    ));
}

fn converse(args: &Args, context: &Context, client: &Client, loaded: &Loaded) -> Result<()> {
    if !loaded.chat {
        bail!("{} has no chat template: continue a text with --prompt instead", loaded.model.name);
    }
    let system = args.system.iter().map(|text| Message { role: Role::System, content: text.clone() });
    let mut messages: Vec<Message> = system.collect();
    let interactive = std::io::stdin().is_terminal();
    let mut last = None;
    let mut lines = std::io::stdin().lock().lines();
    loop {
        if interactive {
            out::print("> ")?;
        }
        if context.cancel.is_cancelled() {
            return Err(Cancelled.into());
        }
        let Some(line) = lines.next() else { break };
        let content = line.context("cannot read from standard input")?;
        if content.trim().is_empty() {
            continue;
        }
        messages.push(Message { role: Role::User, content });
        let found = generate(args, client, Input::Chat(messages.clone()))?;
        messages.push(Message { role: Role::Assistant, content: found.generation.text.clone() });
        last = Some(Report::Generate(found));
    }
    context.write_json(last.as_ref())
}
