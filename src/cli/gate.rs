//! `assay-gates gate init`: a gate for one's own agent, proposed from measured runs, and run.

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

/// Measure an agent three times, propose its gate.yaml, policy and baseline from what was seen in each, and run that gate.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  mkdir -p gates/my-agent && cp agent.py gates/my-agent/
  assay-gates gate init my-agent -- python3 agent.py
  assay-gates gate init my-agent --force --env MODEL=replay -- python3 agent.py
  assay-gates run --gate my-agent --against-baseline

The agent's files stand in gates/NAME, with its virtual environment or node_modules: a gate sees nothing else of its
caller's. It sees them read-only at /run/assay-gates/fixture and starts in the empty folder /run/assay-gates/work. With
--policy, its MCP server is started through `$ASSAY_GATES_BIN mcp-wrap` with the policy
/run/assay-gates/fixture/policy.yaml, and the tools that were called are proposed as the ones allowed.")]
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
    /// The agent's tool calls go through mcp-wrap; with FILE, that policy decides, else the tools called are proposed
    #[arg(long, value_name = "FILE", num_args = 0..=1)]
    policy: Option<Option<PathBuf>>,
    /// A variable of the agent's; repeatable
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// Measure six times: names that seldom differ are found sooner
    #[arg(long)]
    careful: bool,
    /// Write over what an earlier `gate init` proposed
    #[arg(long)]
    force: bool,
    /// Keep a program that fails, and expect that it does
    #[arg(long)]
    allow_failure: bool,
    /// User that the agent runs as
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The agent and its arguments; files of gates/NAME are named as they stand there
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

fn variable(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
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
    if file.exists() && !init.force {
        return Err(Error::new(Code::Usage, "expected no gate of that name, found one")
            .at(file.display())
            .hint(format!("--force writes over it; to run it: assay-gates run --gate {}", init.name)));
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
    use crate::evidence::{Archive, strict};
    use crate::files::{RootPath, quoted, write_atomic};
    use crate::gate::{Catalog, Entry, Placement, Selection};
    use crate::host::WORK;
    use crate::host::interrupt;
    use crate::host::rights::Rights;
    use crate::judge::diff::Baseline;
    use crate::policy::Policy;
    use crate::report::{self, Human, Place};
    use crate::run::propose::{self, Shown};
    use crate::run::{
        BaselineUse, Fit, KernelMeasure, Measure, Measured, Options, ProofRoot, Run, Source, Wanted,
        last_words,
    };
    use std::path::{Path, PathBuf};

    pub(super) fn run(init: &Init) -> Result<Exit> {
        let caller = Rights::of_caller()?;
        let (folder, command) = caller.act(|| {
            let folder = init.gates_dir.join(&init.name);
            std::fs::create_dir_all(&folder)
                .map_err(|error| Error::io("cannot create the folder", &folder, error))?;
            let folder = folder.canonicalize().map_err(|error| Error::io("cannot find", &folder, error))?;
            let cwd = std::env::current_dir().and_then(|cwd| cwd.canonicalize());
            let cwd = cwd.map_err(|error| Error::io("cannot find", Path::new("."), error))?;
            let search = std::env::var("PATH").unwrap_or_default();
            let placement = Placement { folder: &folder, command: &init.command, cwd: &cwd, search: &search };
            placement.check()?;
            let command = placement.command();
            Ok((folder, command))
        })?;
        let policy = PolicyFile::prepare(init, &folder, &caller)?;
        let made = make(init, &folder, command, &policy, &caller);
        if made.is_err() {
            policy.take_back(&caller);
        }
        made
    }

    /// Measures, proposes, writes, and runs what was written.
    fn make(
        init: &Init,
        folder: &Path,
        command: Vec<String>,
        policy: &PolicyFile,
        caller: &Rights,
    ) -> Result<Exit> {
        let mut definition =
            propose::draft(&init.name, command, init.agent_shim.into(), init.policy.is_some());
        definition.env.extend(init.env.iter().cloned());
        let mut entry = Entry { definition, text: String::new(), file: folder.join("gate.yaml") };
        let out =
            tempfile::tempdir().map_err(|error| Error::io("cannot make", &std::env::temp_dir(), error))?;
        let mut fit = Fit::prepare(
            &Selection { gates: vec![entry.clone()], added: Vec::new() },
            &Wanted {
                user: init.user.as_deref(),
                install: false,
                hide: vec![out.path().to_owned()],
                slow: 1,
                ring_bytes: RING_BYTES,
                kernel_event: Default::default(),
            },
        )?;
        let mut measure = fit.measure();
        let runs = measured(init, &entry, out.path(), &mut measure)?;
        entry.text = propose::gate_yaml(&entry.definition, &runs, WORK);
        entry.definition = crate::gate::parse(&entry.text, entry.file.display())?;
        let Some(Shown { archive, effects, .. }) = runs.first() else { return Ok(Exit::Passed) };
        let baseline = Baseline::of(&init.name, &archive.surface, effects)?;
        report::diagnostic(&format!(
            "measured {} times: {} kernel events, {} decisions, {} SDK events, exit status {}",
            runs.len(),
            archive.kernel.len(),
            archive.policy.len(),
            archive.sdk.len(),
            archive.finished.exit_code.unwrap_or_default()
        ));
        let mut written = vec![entry.file.clone(), folder.join("baseline.json")];
        caller.act(|| {
            baseline.write(&folder.join("baseline.json"))?;
            write_atomic(&entry.file, entry.text.as_bytes())
        })?;
        if policy.proposed {
            caller.act(|| write_atomic(&policy.path, propose::policy_yaml(&runs).as_bytes()))?;
            written.push(policy.path.clone());
        }
        let shown = |path: &PathBuf| format!("{}\n", path.display());
        report::data(&written.iter().map(shown).collect::<String>());
        let exit = held(init, &entry, &out.path().join("proof"), &mut measure, caller)?;
        report::diagnostic(&next(init, exit));
        Ok(exit)
    }

    /// Runs of the gate as it will be measured later, through the same door.
    fn measured(
        init: &Init,
        entry: &Entry,
        out: &Path,
        measure: &mut KernelMeasure<'_>,
    ) -> Result<Vec<Shown>> {
        let held = RootPath::open(out, Rights::own())?;
        let count = if init.careful { 6 } else { 3 };
        let mut runs = Vec::new();
        for number in 1..=count {
            if let Some(why) = interrupt::told() {
                return Err(Error::new(Code::Interrupted, format!("told to stop: {why}")));
            }
            let folder = held.join(format!("{number}"));
            folder.create_folder()?;
            let coming = held.join(format!("{}", number + 1));
            let next = (number < count).then_some((entry, &coming));
            let run = measure.measure(entry, Run { number, out: &folder, next })?;
            if number == 1 {
                for name in ["stdout.log", "stderr.log"] {
                    let bytes = folder.join(name).read().ok().flatten().unwrap_or_default();
                    let actions = std::env::var("GITHUB_ACTIONS").is_ok_and(|value| value == "true");
                    report::measured(name, &bytes, actions);
                }
            }
            fit_for_a_gate(init, entry, &run, &folder)?;
            runs.push(of_folder(entry, run, &folder)?);
        }
        Ok(runs)
    }

    /// Refuses a program that failed, unless that is asked for, and a run that can't be judged.
    fn fit_for_a_gate(init: &Init, entry: &Entry, run: &Measured, out: &RootPath) -> Result<()> {
        let outcome = &run.summary.outcome;
        let told = |name: &str| {
            let bytes = out.join(name).read().ok().flatten().unwrap_or_default();
            last_words(&String::from_utf8_lossy(&bytes))
        };
        let said = || {
            let words = Some(told("stderr.log")).filter(|words| !words.is_empty());
            let words = words.unwrap_or_else(|| told("stdout.log"));
            if words.is_empty() { "nothing".to_owned() } else { words.join(" | ") }
        };
        if outcome.timed_out {
            return Err(Error::new(
                Code::RunIncomplete,
                format!(
                    "expected a program that ends, found it running after {} s; its last words: {}",
                    entry.definition.timeout_seconds,
                    said()
                ),
            )
            .hint("give the agent a task that ends by itself, without a terminal and without a network"));
        }
        let ended = match (outcome.exit_code, outcome.signal) {
            (Some(0), _) => None,
            (Some(_), _) if init.allow_failure => None,
            (Some(code), _) => Some(format!("exit status {code}")),
            (None, signal) => Some(format!("signal {}", signal.unwrap_or_default())),
        };
        if let Some(ended) = ended {
            return Err(Error::new(
                Code::AgentFailed,
                format!("expected a program that ends with 0, found {ended}; its last words: {}", said()),
            )
            .hint("mend the program; or, where failing is what it is to do: --allow-failure"));
        }
        if let Some(failure) = &run.without_archive {
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
        Ok(())
    }

    fn of_folder(entry: &Entry, run: Measured, out: &RootPath) -> Result<Shown> {
        let archive = Archive::open(&out.join(&entry.definition.archive).path())?;
        let effects = out.join("tool_effects.json");
        let effects = strict::typed(&effects.expect()?)
            .map_err(|error| Error::new(Code::EvidenceInvalid, error).at(effects.path().display()))?;
        Ok(Shown { archive, effects, origin: run.summary.proof.policy_origin })
    }

    /// Runs the gate that was written, against the baseline that was written.
    fn held(
        init: &Init,
        entry: &Entry,
        root: &Path,
        measure: &mut KernelMeasure<'_>,
        caller: &Rights,
    ) -> Result<Exit> {
        let catalog = caller.act(|| Catalog::load(&init.gates_dir))?;
        let selection = catalog.select(std::slice::from_ref(&entry.definition.id))?;
        let options = Options {
            runs: 3,
            resume: false,
            selection: None,
            slow: 1,
            baselines: BaselineUse::Against,
            source: Source::of(catalog.folder(), |_| None),
            now: || chrono::Utc::now().format("%Y-%m-%dT%H:%M:%SZ").to_string(),
            told_to_stop: interrupt::told,
        };
        let root = ProofRoot::passing(root)?;
        let place = if console::user_attended_stderr() { Place::Terminal } else { Place::Log };
        let mut view = Human::new(place);
        Ok(crate::run::run(&catalog, &selection, &options, &root, measure, &mut view)?.exit)
    }

    /// The line that says what comes next.
    fn next(init: &Init, exit: Exit) -> String {
        let mut run = format!("assay-gates run --gate {} --against-baseline", init.name);
        if init.gates_dir != Path::new("gates") {
            run.push_str(&format!(" --gates-dir {}", quoted(&init.gates_dir.display().to_string())));
        }
        match exit {
            Exit::Passed => format!("the gate passes; keep its files, and from now on: {run}"),
            _ => format!(
                "the gate does not pass yet, for the reasons above; mend the agent and repeat with --force, or edit \
                 gate.yaml, and then: {run}"
            ),
        }
    }

    /// The policy of the gate to be.
    struct PolicyFile {
        path: PathBuf,
        /// It is to be proposed from the runs.
        proposed: bool,
        /// What stood there before, when it was replaced.
        before: Option<Vec<u8>>,
        /// Something was written there.
        replaced: bool,
    }

    impl PolicyFile {
        /// Puts the policy in place under which the runs are measured: the caller's, the one that lies there, or one that
        /// lets everything through.
        fn prepare(init: &Init, folder: &Path, caller: &Rights) -> Result<Self> {
            let path = folder.join("policy.yaml");
            let mut file = Self { path, proposed: false, before: None, replaced: false };
            let Some(wanted) = &init.policy else { return Ok(file) };
            if let Some(own) = wanted {
                Policy::read(own)?;
            }
            caller.act(|| {
                let read = |path: &Path| match std::fs::read(path) {
                    Ok(bytes) => Ok(Some(bytes)),
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(Error::io("cannot read", path, error)),
                };
                file.before = read(&file.path)?;
                let text = match wanted {
                    Some(own) => {
                        let text = read(own)?.unwrap_or_default();
                        if file.before.as_ref().is_some_and(|before| *before != text) && !init.force {
                            return Err(Error::new(Code::Usage, "expected no other policy, found one")
                                .at(file.path.display())
                                .hint("--force writes over it"));
                        }
                        text
                    }
                    None => {
                        // What a user wrote decides; what was proposed before is proposed anew.
                        let proposed = |text: &Vec<u8>| text.starts_with(propose::PROPOSED_POLICY.as_bytes());
                        file.proposed = file.before.as_ref().is_none_or(proposed);
                        if !file.proposed {
                            return Ok(());
                        }
                        propose::OPEN_POLICY.as_bytes().to_vec()
                    }
                };
                file.replaced = true;
                write_atomic(&file.path, &text)
            })?;
            Ok(file)
        }

        /// Nobody should find a policy that lets everything through where a gate was to be.
        fn take_back(&self, caller: &Rights) {
            if !self.replaced {
                return;
            }
            let _best_effort = caller.act(|| match &self.before {
                Some(before) => write_atomic(&self.path, before),
                None => std::fs::remove_file(&self.path)
                    .map_err(|error| Error::io("cannot remove", &self.path, error)),
            });
        }
    }
}
