//! `assay-gates list`: the gates, and whether this host can run each.

use crate::error::{Exit, Result};
use crate::gate::dependencies::Inspector;
use crate::gate::{Catalog, Entry, Group, Presence};
use crate::report;
use clap::{Args as ClapArgs, ValueEnum};
use serde::Serialize;
use std::path::PathBuf;

/// Show the gates, their layers, and whether this host can run each.
#[derive(ClapArgs, Debug)]
#[command(after_help = "\
Examples:
  assay-gates list                   a table
  assay-gates list --format json     the same for machines
  assay-gates list --format github   a job matrix: matrix={\"include\":[{\"gate\":…,\"runner\":…}]}")]
pub struct Args {
    /// Folder of the gate definitions.
    #[arg(long, value_name = "DIR", default_value = "gates")]
    gates_dir: PathBuf,
    /// Runner label of each job of the matrix.
    #[arg(long, value_name = "LABEL", default_value = "assay-bpf-runner")]
    runner: Vec<String>,
    /// How it is shown.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table.
    Human,
    /// One JSON object.
    Json,
    /// A line for GITHUB_OUTPUT that holds a matrix of the gates in `all`.
    Github,
}

/// `list --format json` (`assay.gates.list.v0`).
#[derive(Serialize)]
struct List<'a> {
    schema: &'static str,
    host: Ability,
    gates: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    aliases: &'a [String],
    title: &'a str,
    in_all: bool,
    layers: Vec<&'static str>,
    runs: u32,
    #[serde(flatten)]
    ability: Ability,
}

/// Whether something can be measured here, and what is missing.
#[derive(Clone, Serialize)]
struct Ability {
    can_run: bool,
    missing: Vec<String>,
}

#[derive(Serialize)]
struct Matrix<'a> {
    include: Vec<Job<'a>>,
}

#[derive(Serialize)]
struct Job<'a> {
    gate: &'a str,
    runner: &'a str,
}

/// Carries it out.
pub fn run(args: &Args) -> Result<Exit> {
    let catalog = Catalog::load(&args.gates_dir)?;
    if args.format == Format::Github {
        let all = catalog.entries().iter().filter(|entry| entry.definition.group == Group::All);
        let include = all
            .flat_map(|entry| args.runner.iter().map(|runner| Job { gate: &entry.definition.id, runner }))
            .collect();
        report::data(&format!("matrix={}\n", crate::files::compact(&Matrix { include })?));
        return Ok(Exit::Passed);
    }
    let host = host();
    let inspector = Inspector::default();
    let gates: Vec<Row> = catalog.entries().iter().map(|entry| row(entry, &host, &inspector)).collect();
    if args.format == Format::Json {
        report::data(&crate::files::pretty_sorted(&List { schema: "assay.gates.list.v0", host, gates })?);
        return Ok(Exit::Passed);
    }
    let mut table = vec![["gate", "all", "layers", "runs", "here", "title"].map(str::to_owned).to_vec()];
    for gate in &gates {
        table.push(vec![
            gate.id.to_owned(),
            if gate.in_all { "yes" } else { "" }.to_owned(),
            gate.layers.join("+"),
            gate.runs.to_string(),
            if gate.ability.can_run { "yes" } else { "no" }.to_owned(),
            gate.title.to_owned(),
        ]);
    }
    report::data(&report::columns(&table));
    let lacking: Vec<&str> = gates
        .iter()
        .filter(|gate| gate.ability.missing.iter().any(|missing| !host.missing.contains(missing)))
        .map(|gate| gate.id)
        .collect();
    if !lacking.is_empty() {
        report::diagnostic(&format!("packages are missing for: {}", lacking.join(", ")));
        report::diagnostic("  hint: assay-gates dependencies --install");
    }
    for unfinished in crate::run::unfinished::unfinished(std::path::Path::new(crate::run::ROOTS)) {
        report::diagnostic(&unfinished.to_string());
    }
    for missing in &host.missing {
        report::diagnostic(&format!("this host can't measure: {missing}"));
    }
    Ok(Exit::Passed)
}

fn row<'a>(entry: &'a Entry, host: &Ability, inspector: &Inspector) -> Row<'a> {
    let gate = &entry.definition;
    let mut layers = vec!["kernel"];
    if gate.layers.policy == Presence::Required {
        layers.push("policy");
    }
    if gate.layers.sdk == Presence::Required {
        layers.push("sdk");
    }
    let mut missing = host.missing.clone();
    match inspector.inspect(entry) {
        Ok(found) => missing.extend(found.problems.iter().map(ToString::to_string)),
        Err(error) => missing.push(error.to_string()),
    }
    Row {
        id: &gate.id,
        aliases: &gate.aliases,
        title: &gate.title,
        in_all: gate.group == Group::All,
        layers,
        runs: 3,
        ability: Ability { can_run: missing.is_empty(), missing },
    }
}

/// What the preflight says of this host.
fn host() -> Ability {
    #[cfg(all(feature = "capture", target_os = "linux"))]
    let missing = {
        use crate::host::doctor::{Options, unfit};
        unfit(Options { online: false, trials: false, ..Options::default() })
    };
    #[cfg(not(all(feature = "capture", target_os = "linux")))]
    let missing = vec!["this build has no measuring half (feature `capture`, Linux only)".to_owned()];
    Ability { can_run: missing.is_empty(), missing }
}
