//! `assay-gates gate init`: a gate for one's own agent, proposed from one measured run.

use crate::error::{Code, Error, Exit, Result};
use crate::gate::AgentShim;
use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Make gates of one's own.
#[derive(ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Init(Init),
}

/// Measure an agent once, and propose its gate.yaml, policy and baseline from what was seen.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  mkdir -p gates/my-agent && cp agent.py gates/my-agent/
  assay-gates gate init my-agent -- python3 agent.py
  assay-gates run --gate my-agent

The agent's files stand in gates/NAME, which it sees read-only at /run/assay-gates/fixture; it starts in the empty
folder /run/assay-gates/work. With --policy, its MCP server is started through `$ASSAY_GATES_BIN mcp-wrap` with the
policy /run/assay-gates/fixture/policy.yaml, and the tools that were called are proposed as the ones allowed.")]
struct Init {
    /// The gate's name: lowercase letters, digits, hyphens
    #[arg(value_name = "NAME")]
    name: String,
    /// Folder of the gate definitions
    #[arg(long, value_name = "DIR", default_value = "gates")]
    gates_dir: PathBuf,
    /// What the agent is built on; with an SDK, its events are expected
    #[arg(long, value_enum, default_value_t)]
    agent_shim: Shim,
    /// The agent's tool calls go through mcp-wrap
    #[arg(long)]
    policy: bool,
    /// User that the agent runs as
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The agent and its arguments; files of gates/NAME are named as they stand there
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum Shim {
    /// No SDK
    #[default]
    None,
    /// npm `@openai/agents`
    OpenaiAgents,
    /// PyPI `google-genai`
    GeminiGoogleGenai,
}

impl From<Shim> for AgentShim {
    fn from(shim: Shim) -> Self {
        match shim {
            Shim::None => AgentShim::None,
            Shim::OpenaiAgents => AgentShim::OpenaiAgents,
            Shim::GeminiGoogleGenai => AgentShim::GeminiGoogleGenai,
        }
    }
}

/// Carries it out.
pub fn run(args: &Args) -> Result<Exit> {
    let Command::Init(init) = &args.command;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if init.name.is_empty() || !init.name.bytes().all(plain) || init.name.starts_with('-') {
        return Err(Error::new(
            Code::Usage,
            format!(
                "expected a name of lowercase letters, digits and hyphens, found {}",
                init.name.escape_debug()
            ),
        ));
    }
    let file = init.gates_dir.join(&init.name).join("gate.yaml");
    if file.exists() {
        return Err(Error::new(Code::Usage, "expected no gate of that name, found one")
            .at(file.display())
            .hint(format!("assay-gates run --gate {}", init.name)));
    }
    imp::run(init)
}

#[cfg(not(all(feature = "capture", target_os = "linux")))]
mod imp {
    pub(super) fn run(_: &super::Init) -> crate::error::Result<crate::error::Exit> {
        Err(crate::cli::built_without_capture())
    }
}

#[cfg(all(feature = "capture", target_os = "linux"))]
mod imp {
    use super::Init;
    use crate::capture::RING_BYTES;
    use crate::error::{Code, Error, Exit, Result};
    use crate::evidence::{Archive, ToolEffects, strict};
    use crate::files::{RootPath, write_atomic};
    use crate::gate::{Entry, Selection};
    use crate::host::rights::Rights;
    use crate::host::{FIXTURE, WORK};
    use crate::judge::diff::Baseline;
    use crate::report;
    use crate::run::{Fit, Measure, Run, Wanted, propose};
    use std::path::Path;

    pub(super) fn run(init: &Init) -> Result<Exit> {
        let folder = init.gates_dir.join(&init.name);
        let caller = Rights::of_caller()?;
        let folder = caller.act(|| {
            std::fs::create_dir_all(&folder)
                .map_err(|error| Error::io("cannot create the folder", &folder, error))?;
            folder.canonicalize().map_err(|error| Error::io("cannot find", &folder, error))
        })?;
        let policy = folder.join("policy.yaml");
        let own_policy = init.policy && !policy.exists();
        if own_policy {
            caller.act(|| write_atomic(&policy, propose::OPEN_POLICY.as_bytes()))?;
        }
        let measured = measured(init, &folder);
        if own_policy && measured.is_err() {
            // Nobody should find a policy that lets everything through where a gate was to be.
            let _best_effort = caller.act(|| Ok(std::fs::remove_file(&policy)));
        }
        let (entry, archive, effects, origin) = measured?;
        let text = propose::gate_yaml(&entry.definition, &archive, &effects, origin.as_deref(), WORK);
        crate::gate::parse(&text, entry.file.display())?;
        let baseline = Baseline::of(&init.name, &archive.surface, &effects)?;
        if own_policy {
            caller.act(|| write_atomic(&policy, propose::policy_yaml(&archive).as_bytes()))?;
        }
        caller.act(|| {
            baseline.write(&folder.join("baseline.json"))?;
            write_atomic(&entry.file, text.as_bytes())
        })?;
        report::diagnostic(&format!(
            "measured once: {} kernel events, {} decisions, {} SDK events, exit status {}",
            archive.kernel.len(),
            archive.policy.len(),
            archive.sdk.len(),
            archive.finished.exit_code.map_or_else(|| "none (killed)".to_owned(), |code| code.to_string())
        ));
        let mut written = format!("{}\n{}\n", entry.file.display(), folder.join("baseline.json").display());
        if own_policy {
            written.push_str(&format!("{}\n", policy.display()));
        }
        report::data(&written);
        report::diagnostic(&format!("next: read gate.yaml, then assay-gates run --gate {}", init.name));
        Ok(Exit::Passed)
    }

    type Seen = (Entry, Archive, ToolEffects, Option<String>);

    /// One run of the gate as it will be measured later, through the same door.
    fn measured(init: &Init, folder: &Path) -> Result<Seen> {
        let command = init.command.iter().map(|word| in_fixture(word, folder)).collect();
        let entry = Entry {
            definition: propose::draft(&init.name, command, init.agent_shim.into(), init.policy),
            text: String::new(),
            file: folder.join("gate.yaml"),
        };
        let selection = Selection { gates: vec![entry.clone()], added: Vec::new() };
        let out =
            tempfile::tempdir().map_err(|error| Error::io("cannot make", &std::env::temp_dir(), error))?;
        let mut fit = Fit::prepare(
            &selection,
            &Wanted {
                user: init.user.as_deref(),
                install: false,
                hide: vec![out.path().to_owned()],
                slow: 1,
                ring_bytes: RING_BYTES,
                kernel_event: Default::default(),
            },
        )?;
        let held = RootPath::open(out.path(), Rights::own())?;
        let run = fit.measure().measure(&entry, Run { number: 1, out: &held, next: None })?;
        let shown = |name: &str| {
            let bytes = held.join(name).read().ok().flatten().unwrap_or_default();
            report::measured(
                name,
                &bytes,
                std::env::var("GITHUB_ACTIONS").is_ok_and(|value| value == "true"),
            );
        };
        shown("stdout.log");
        shown("stderr.log");
        if let Some(failure) = run.without_archive {
            return Err(Error::new(
                Code::RunIncomplete,
                format!("expected an archive of the run, found none: {}", failure.text),
            ));
        }
        if !run.summary.proof.complete {
            return Err(Error::new(
                Code::RunIncomplete,
                format!("expected a complete capture, found {}", run.summary.proof.reasons.join("; ")),
            ));
        }
        let archive = Archive::open(&out.path().join(&entry.definition.archive))?;
        let effects = out.path().join("tool_effects.json");
        let bytes = std::fs::read(&effects).map_err(|error| Error::io("cannot read", &effects, error))?;
        let effects = strict::typed(&bytes)
            .map_err(|error| Error::new(Code::EvidenceInvalid, error).at(effects.display()))?;
        Ok((entry, archive, effects, run.summary.proof.policy_origin))
    }

    /// A file of the gate's folder, as the measured program will find it; any other word as it is.
    fn in_fixture(word: &str, folder: &Path) -> String {
        let plain =
            !word.is_empty() && !word.starts_with(['/', '-']) && !word.split('/').any(|part| part == "..");
        if plain && folder.join(word).is_file() {
            format!("{FIXTURE}/{}", word.trim_start_matches("./"))
        } else {
            word.to_owned()
        }
    }
}
