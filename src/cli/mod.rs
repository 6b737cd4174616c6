//! The command line: one file per subcommand, its arguments and the call it makes.

#[cfg(all(feature = "capture", target_os = "linux"))]
mod built;
#[cfg(all(feature = "capture", target_os = "linux"))]
mod clean;
mod dependencies;
mod diff;
mod dispatch;
mod doctor;
mod explain;
mod gate;
mod generate;
mod github;
mod host;
mod incident;
mod lane;
mod list;
#[cfg(target_os = "linux")]
mod mcp_wrap;
mod pack;
mod policy;
mod record;
mod report;
mod run;
mod triage;
mod upload;
mod verify;
mod verify_pack;
mod watch;

use crate::error::Exit;
use crate::error::Result;
use crate::files::nearest;
use crate::host::rights::Rights;
use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "assay-gates",
    about,
    disable_version_flag = true,
    arg_required_else_help = true,
    subcommand_negates_reqs = true
)]
struct Cli {
    /// Print the version; with --verbose also what the binary was built from.
    #[arg(short = 'V', long)]
    version: bool,
    /// With --version: the kernel programs' digest and compiler.
    #[arg(short, long, requires = "version")]
    verbose: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Args),
    List(list::Args),
    Pack(pack::Args),
    Verify(verify::Args),
    Diff(diff::Args),
    Gate(gate::Args),
    Upload(upload::Args),
    #[cfg(all(feature = "capture", target_os = "linux"))]
    Built(built::Args),
    #[cfg(all(feature = "capture", target_os = "linux"))]
    Clean(clean::Args),
    Dependencies(dependencies::Args),
    Doctor(doctor::Args),
    Host(host::Args),
    Incident(incident::Args),
    Lane(lane::Args),
    Record(record::Args),
    Triage(triage::Args),
    Report(report::Args),
    Dispatch(dispatch::Args),
    Watch(watch::Args),
    Explain(explain::Args),
    #[cfg(target_os = "linux")]
    McpWrap(mcp_wrap::Args),
    Policy(policy::Args),
    Completions(generate::Completions),
    Man(generate::Man),
    /// Becomes a measured program; started by the driver alone.
    #[cfg(all(feature = "capture", target_os = "linux"))]
    #[command(name = crate::host::launch::SUBCOMMAND, hide = true)]
    Launch,
}

/// Parses, calls, and maps the outcome to an exit code.
#[must_use]
pub fn main() -> ExitCode {
    crate::host::variables::keep_listed();
    let cli = match parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(usage) => {
            let help = !usage.use_stderr();
            crate::report::printed(usage.print());
            return ended(if help { Exit::Passed } else { Exit::Usage });
        }
    };
    match carry_out(cli) {
        Ok(exit) => ended(exit),
        Err(error) => {
            crate::report::error(&error);
            ExitCode::from(error.exit().code())
        }
    }
}

/// The exit code of what came to `exit`, unless what it said is not where it was to be written.
fn ended(exit: Exit) -> ExitCode {
    match crate::report::undelivered() {
        Some(error) if exit == Exit::Passed => {
            crate::report::error(error);
            ExitCode::from(error.exit().code())
        }
        _ => ExitCode::from(exit.code()),
    }
}

/// The command line's grammar, its prose in one line a paragraph, so that it is wrapped once, at the terminal's width.
fn grammar() -> clap::Command {
    fn reflowed(mut command: clap::Command) -> clap::Command {
        if let Some(help) = command.get_after_help().map(ToString::to_string) {
            command = command.after_help(paragraphs(&help));
        }
        command.mut_subcommands(reflowed)
    }
    reflowed(Cli::command()).version(env!("CARGO_PKG_VERSION")).propagate_version(true)
}

/// Joins lines of prose. What is indented, or stands above what is, is no prose.
fn paragraphs(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let prose = |line: &str| !line.is_empty() && !line.starts_with(' ') && !line.ends_with(':');
    let mut joined = String::new();
    for (at, line) in lines.iter().enumerate() {
        joined.push_str(line);
        match lines.get(at + 1) {
            Some(next) if prose(line) && prose(next) => joined.push(' '),
            Some(_) => joined.push('\n'),
            None => {}
        }
    }
    joined
}

/// A near miss of a subcommand is told from a stranger, however many of its letters changed places.
fn parse<W: Into<std::ffi::OsString> + Clone>(
    words: impl IntoIterator<Item = W>,
) -> clap::error::Result<Cli> {
    let words: Vec<std::ffi::OsString> = words.into_iter().map(Into::into).collect();
    let mut grammar = grammar();
    let parsed = grammar.try_get_matches_from_mut(&words).and_then(|matches| Cli::from_arg_matches(&matches));
    parsed.map_err(|mut error| {
        let Some(ContextValue::String(unknown)) = error.get(ContextKind::InvalidSubcommand).cloned() else {
            return error;
        };
        let mut command = &grammar;
        for word in words.iter().take_while(|word| **word != *unknown) {
            command = command.find_subcommand(word).unwrap_or(command);
        }
        let names = command.get_subcommands().filter(|command| !command.is_hide_set());
        if let Some(near) = nearest(&unknown, names.map(clap::Command::get_name)) {
            error.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(vec![near.to_owned()]));
        }
        error
    })
}

/// Whether a command line of this tool parses; nothing is carried out. For the tests of the lines that the tool, its
/// pages and its errors tell people to paste.
///
/// # Errors
/// What the parser says.
pub fn parses<'w>(words: impl IntoIterator<Item = &'w str>) -> Result<(), String> {
    match parse(words) {
        Err(error) if error.use_stderr() => Err(error.to_string()),
        // The help that was asked for comes as an error too.
        Ok(_) | Err(_) => Ok(()),
    }
}

fn carry_out(cli: Cli) -> Result<Exit> {
    let Some(command) = cli.command else {
        crate::report::data(&version(cli.verbose));
        return Ok(Exit::Passed);
    };
    if !has_root_half(&command) {
        Rights::of_caller()?.take_for_good()?;
    }
    match command {
        Command::Run(args) => run::run(&args),
        Command::List(args) => list::run(&args),
        Command::Pack(args) => pack::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Diff(args) => diff::run(&args),
        Command::Gate(args) => gate::run(&args),
        Command::Upload(args) => upload::run(&args),
        #[cfg(all(feature = "capture", target_os = "linux"))]
        Command::Built(args) => built::run(&args),
        #[cfg(all(feature = "capture", target_os = "linux"))]
        Command::Clean(args) => clean::run(&args),
        Command::Dependencies(args) => dependencies::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Host(args) => host::run(&args),
        Command::Incident(args) => incident::run(&args),
        Command::Lane(args) => lane::run(&args),
        Command::Record(args) => record::run(args),
        Command::Report(args) => report::run(&args),
        Command::Dispatch(args) => dispatch::run(&args),
        Command::Watch(args) => watch::run(&args),
        Command::Triage(args) => triage::run(&args),
        Command::Explain(args) => explain::run(&args),
        #[cfg(target_os = "linux")]
        Command::McpWrap(args) => mcp_wrap::run(&args),
        Command::Policy(args) => policy::run(&args),
        Command::Completions(args) => generate::completions(&args),
        Command::Man(args) => generate::man(&args),
        #[cfg(all(feature = "capture", target_os = "linux"))]
        Command::Launch => Ok(crate::host::launcher::main()),
    }
}

/// What needs root. Everything else is done as the user who called sudo, from before its first file on: it may open,
/// write and start what that user names.
fn has_root_half(command: &Command) -> bool {
    match command {
        Command::Run(_)
        | Command::Gate(_)
        | Command::Dependencies(_)
        | Command::Doctor(_)
        | Command::Host(_)
        | Command::Record(_) => true,
        #[cfg(all(feature = "capture", target_os = "linux"))]
        Command::Built(_) | Command::Clean(_) | Command::Launch => true,
        _ => false,
    }
}

/// `--kernel-event`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum KernelEventForm {
    /// assay.runner.kernel_event.v0
    #[default]
    V0,
    /// assay.runner.kernel_event.v1
    V1,
}

impl From<KernelEventForm> for crate::evidence::KernelVersion {
    fn from(form: KernelEventForm) -> Self {
        match form {
            KernelEventForm::V0 => Self::V0,
            KernelEventForm::V1 => Self::V1,
        }
    }
}

/// What measures is said to be missing, rather than the subcommand unknown.
#[cfg(not(all(feature = "capture", target_os = "linux")))]
fn built_without_capture() -> crate::error::Error {
    crate::error::Error::new(crate::error::Code::CannotMeasure, "this build can't measure")
        .hint("on Linux: cargo build --release --features capture")
}

/// `--slow`.
fn slowness() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=100)
}

/// Sizes of the ring that the kernel takes: one page to a GiB.
fn ring_bytes() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(4096..=1 << 30)
}

/// One line; verbose, what the binary was built from too.
fn version(verbose: bool) -> String {
    let mut text = format!("assay-gates {}\n", env!("CARGO_PKG_VERSION"));
    if verbose {
        text.push_str(&match crate::capture::embedded() {
            Some(object) => {
                format!(
                    "kernel programs: {} ({} bytes, {})\n",
                    object.sha256,
                    object.bytes.len(),
                    object.compiler
                )
            }
            None => "kernel programs: none in this build\n".to_owned(),
        });
    }
    text
}
