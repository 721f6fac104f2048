//! `tersor fetch`.

use std::path::PathBuf;

use super::Context;
use super::bars::Bars;
use crate::fetch::{self, Located, Options, manifest};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A name of the list, or a Hugging Face id: org/name[@revision][:file]; without it, the list is shown
    name: Option<String>,
    /// Take a named model from this wheel (.whl), or from this folder with its files, instead of the network
    #[arg(long, value_name = "PATH", requires = "name")]
    from: Option<PathBuf>,
}

pub fn run(args: &Args, context: &Context) -> anyhow::Result<()> {
    let Some(name) = &args.name else {
        for model in manifest::models()? {
            println!("{:16}{} ({})", model.name, model.description, model.license);
        }
        return Ok(());
    };
    let options = Options { cache: None, from: args.from.clone(), monitor: Bars::monitor(context.cancel.clone()) };
    match fetch::locate(name, &options)? {
        Located::Path(path) => println!("{}", path.display()),
        Located::Embedded(_) => println!("{name} is part of this program: nothing to fetch"),
    }
    Ok(())
}
