//! `tersor fetch`.

use std::path::PathBuf;

use super::bars::Bars;
use super::{Context, out};
use crate::fetch::{self, Located, Options};
use crate::manifest;
use crate::table::{Align, Table};

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
        let mut table = Table::new([("name", Align::Left), ("licence", Align::Left), ("description", Align::Left)]);
        for model in manifest::models()? {
            table.row([model.name, model.license, model.description]);
        }
        return out::print(table.fit(out::width()));
    };
    let options = Options { cache: None, from: args.from.clone(), monitor: Bars::monitor(context.cancel.clone()) };
    match fetch::locate(name, &options)? {
        Located::Path(path) => out::line(path.display()),
        Located::Embedded(_) => out::line(format_args!("{name} is part of this program: nothing to fetch")),
    }
}
