//! Logs to facts: a single log, and the zips and folders of them, which are read the same way.
//!
//! Layouts seen: `<job>/N_step.txt` per step, `<job>/system.txt`, `N_<job>.txt` or `-N_<job>.txt` per job. Step files
//! may be missing and entries may be corrupt; then the job's own file stands in, and what could not be read is named.

use super::tree::Tree;
use crate::triage::facts::{Case, Confidence, Fact, FactKind, Place};
use crate::triage::log::{Hit, Patterns, Scan, scan};
use crate::triage::rules::{Pattern, Rules};
use std::collections::BTreeMap;
use std::io::Read;

/// One log file of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogFile {
    /// Name in the zip or folder.
    pub name: String,
    /// The job as the zip names it: without `/` and `:`, cut to 90 UTF-16 units.
    pub job: Option<String>,
    /// The name of the step.
    pub step: Option<String>,
}

impl LogFile {
    /// Job and step from a name in the zip.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let numbered = |text: &str| {
            let (number, rest) = text.strip_suffix(".txt")?.split_once('_')?;
            number.trim_start_matches('-').parse::<u32>().ok()?;
            Some(rest.to_owned())
        };
        let (job, step) = match name.split_once('/') {
            Some((job, file)) => (Some(job.to_owned()), numbered(file)),
            None => (numbered(name), None),
        };
        Self { name: name.to_owned(), job, step }
    }
}

/// Reads every log of a zip or folder, step files first. The second list names what could not be read.
#[must_use]
pub fn read_logs(tree: &mut Tree, patterns: &Patterns) -> (Vec<(LogFile, Scan)>, Vec<String>) {
    let (mut read, mut missing) = (Vec::<(LogFile, Scan)>::new(), Vec::new());
    let mut of_steps: BTreeMap<Option<String>, u64> = BTreeMap::new();
    let files: Vec<LogFile> = tree.names().iter().map(|name| LogFile::named(name)).collect();
    let (whole_jobs, steps): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| !file.name.contains('/'));
    let mut entry = |file: &LogFile, tree: &mut Tree| {
        let found = tree.with(&file.name, |reader| read_log(reader, patterns));
        match found {
            Ok(Some(scan)) => Some(scan),
            Ok(None) => None,
            Err(error) => {
                missing.push(format!("log {}: {error}", file.name));
                None
            }
        }
    };
    for file in steps {
        if let Some(scan) = entry(&file, tree) {
            *of_steps.entry(file.job.clone()).or_default() += scan.bytes;
            read.push((file, scan));
        }
    }
    for file in whole_jobs {
        // The step files hold the same text; the job's file is read when some of it is not in them.
        let size = tree.size(&file.name).unwrap_or(u64::MAX);
        if of_steps.get(&file.job).is_some_and(|steps| *steps * 20 >= size.saturating_mul(19)) {
            continue;
        }
        if let Some(scan) = entry(&file, tree) {
            let known = |hit: &Hit| {
                let same = |other: &Hit| other.time == hit.time && other.text == hit.text;
                let of_job = |(other, _): &&(LogFile, Scan)| other.job == file.job && other.name != file.name;
                read.iter().filter(of_job).any(|(_, scan)| scan.hits.iter().any(same))
            };
            let hits = scan.hits.iter().filter(|hit| !known(hit)).cloned().collect();
            read.push((file, Scan { hits, ..scan }));
        }
    }
    (read, missing)
}

/// Reads one log.
///
/// # Errors
/// A sentence: what came instead of a log, or what the reader fails with.
pub fn read_log(mut reader: impl Read, patterns: &Patterns) -> Result<Scan, String> {
    let mut head = Vec::new();
    reader.by_ref().take(4096).read_to_end(&mut head).map_err(|error| error.to_string())?;
    match crate::files::unlike_text(&head) {
        Some(what) => Err(what),
        None => scan(head.as_slice().chain(reader), patterns).map_err(|error| error.to_string()),
    }
}

/// Adds what a log gave. `measured`: the whole log was printed by a measured program.
pub fn add(rules: &Rules, case: &mut Case, place: &Place, scan: Scan, measured: bool) {
    // A program that fails for a reason of its own says so in a log that shows a failure; a green one may say anything.
    let driven = scan.hits.iter().any(|hit| !hit.measured && rules.pattern(hit.pattern) == Pattern::Code);
    let failed = measured || driven || scan.failures > 0;
    for hit in scan.hits.into_iter().filter(|hit| failed || !rules.needs_failure(hit.pattern)) {
        let place = Place {
            line: Some(hit.line),
            job: place.job.clone().or_else(|| hit.job.clone()),
            step: place.step.clone().or_else(|| hit.step.clone()).or_else(|| step_of(&hit.commands)),
            ..place.clone()
        };
        let fact = fact(rules, hit, place, measured);
        match fact.kind {
            FactKind::Run => {
                case.environment.insert("runner version".to_owned(), fact.value);
            }
            _ => case.push(fact),
        }
    }
}

fn fact(rules: &Rules, hit: Hit, place: Place, measured: bool) -> Fact {
    let detail = hit.detail.clone().unwrap_or_default();
    let (kind, key, value) = match rules.pattern(hit.pattern) {
        Pattern::Code => (FactKind::Code, "code", detail),
        Pattern::ExitCode => (FactKind::ExitCode, "exit_code", detail),
        Pattern::RunnerVersion if !measured && !hit.measured => (FactKind::Run, "runner", detail),
        Pattern::RunnerVersion | Pattern::Line => (FactKind::Log, "line", hit.text.clone()),
    };
    let mut fact = Fact::new(kind, key, value, place);
    fact.context = hit.context;
    fact.measured = measured || hit.measured;
    fact.confidence = fact.confidence.min(Confidence::Likely);
    if fact.place.gate.is_none() {
        fact.place.gate = fact.place.step.as_deref().and_then(gate_of_step).map(str::to_owned);
    }
    fact
}

/// `Gate: <id>`, or what the log zip makes of it: `Gate <id>`.
#[must_use]
pub fn gate_of_step(step: &str) -> Option<&str> {
    let rest = step.strip_prefix("Gate")?;
    let id = rest.trim_start_matches([':', ' ']).trim();
    (!id.is_empty() && rest.starts_with([':', ' '])).then_some(id)
}

/// The step by the command that it runs, when all that it starts of this tool is one subcommand: as the workflow of the
/// gates names its steps.
fn step_of(commands: &[String]) -> Option<String> {
    let mut steps: Vec<String> = commands.iter().filter_map(|command| step_of_command(command)).collect();
    steps.dedup();
    match steps.as_slice() {
        [step] => Some(step.clone()),
        _ => None,
    }
}

fn step_of_command(command: &str) -> Option<String> {
    let words: Vec<&str> = command.split_whitespace().map(|word| word.trim_matches(['"', '\''])).collect();
    let is_tool = |word: &&str| {
        word.rsplit('/').next() == Some("assay-gates") || matches!(*word, "$ASSAY_GATES" | "${ASSAY_GATES}")
    };
    let at = words.iter().position(is_tool)?;
    let step = match *words.get(at + 1)? {
        "run" => {
            let option = |word: &&str| matches!(*word, "--gate" | "--gates");
            let gate = words.iter().position(option).and_then(|at| words.get(at + 1).copied());
            let joined =
                words.iter().find_map(|word| word.strip_prefix("--gate=").or(word.strip_prefix("--gates=")));
            return gate.or(joined).map(|gate| format!("Gate: {gate}"));
        }
        "doctor" => "Doctor",
        "clean" => "Clean",
        "dependencies" => "Install what the fixtures need",
        "pack" => "Pack",
        "upload" => "Upload",
        "report" => "Summary",
        _ => return None,
    };
    Some(step.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::triage::log::Sought;
    use std::io::Write;

    fn zip_of(files: &[(&str, &str)]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = zip::ZipWriter::new(file.reopen().unwrap());
        for (name, text) in files {
            writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
            writer.write_all(text.as_bytes()).unwrap();
        }
        writer.finish().unwrap();
        file
    }

    fn patterns() -> Patterns {
        Patterns::new([Sought { text: &regex::Regex::new("needle").unwrap(), by: None }]).unwrap()
    }

    /// Job, step and text of what is found, the same in a zip and in the folder that it unpacks to.
    fn found(files: &[(&str, &str)]) -> Vec<(String, Option<String>, String)> {
        let flat = |path: &std::path::Path| {
            let (read, missing) = read_logs(&mut Tree::open(path).unwrap(), &patterns());
            assert_eq!(missing, Vec::<String>::new());
            let all = read.into_iter().flat_map(|(file, scan)| {
                let place = (file.job.unwrap_or_default(), file.step);
                scan.hits.into_iter().map(move |hit| (place.0.clone(), place.1.clone(), hit.text))
            });
            all.collect::<Vec<_>>()
        };
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let of_zip = flat(zip_of(files).path());
        assert_eq!(of_zip, flat(folder.path()));
        of_zip
    }

    #[test]
    fn step_files_tell_the_step_and_are_not_read_twice() {
        let text = "2026-01-01T00:00:00.1Z needle\n";
        let files =
            [("gates/3_Gate kernel-only.txt", text), ("0_gates.txt", text), ("gates/system.txt", "x\n")];
        assert_eq!(found(&files), [("gates".into(), Some("Gate kernel-only".into()), "needle".into())]);
    }

    #[test]
    fn a_missing_step_file_is_made_up_for_by_the_jobs_file() {
        let files = [
            ("gates/1_Set up job.txt", "2026-01-01T00:00:00.1Z needle one\n"),
            (
                "-2147483648_gates.txt",
                "2026-01-01T00:00:00.1Z needle one\n2026-01-01T00:00:01.1Z needle two\n",
            ),
        ];
        assert_eq!(
            found(&files),
            [
                ("gates".into(), Some("Set up job".into()), "needle one".into()),
                ("gates".into(), None, "needle two".into())
            ]
        );
    }

    #[test]
    fn a_corrupt_entry_is_named_and_the_rest_is_read() {
        let zip = zip_of(&[("a/1_x.txt", &"needle one\n".repeat(50)), ("b/1_y.txt", "needle two\n")]);
        let mut bytes = std::fs::read(zip.path()).unwrap();
        // The data of the first entry begins after its 30-byte header and name.
        bytes[30 + 9 + 4] ^= 0xff;
        std::fs::write(zip.path(), &bytes).unwrap();
        let (read, missing) = read_logs(&mut Tree::open(zip.path()).unwrap(), &patterns());
        assert!(missing.len() == 1 && missing[0].contains("a/1_x.txt"), "{missing:?}");
        assert_eq!(read.iter().filter(|(file, _)| file.name == "b/1_y.txt").count(), 1);
    }

    #[test]
    fn the_command_of_a_step_tells_which_step_it_is() {
        for (command, step) in [
            (
                "Run sudo -n \"$ASSAY_GATES\" run --gate kernel-only --root \"$PROOF_ROOT\"",
                Some("Gate: kernel-only"),
            ),
            ("Run ./target/release/assay-gates run --gates=all", Some("Gate: all")),
            ("sudo -n assay-gates clean --phase before-run --apply", Some("Clean")),
            ("Run sudo -n \"${ASSAY_GATES}\" doctor", Some("Doctor")),
            ("Run cargo test -p assay-gates run", None),
            ("Run make", None),
        ] {
            assert_eq!(step_of(&[command.to_owned()]).as_deref(), step, "{command}");
        }
        let two = ["assay-gates doctor", "assay-gates run --gate g"].map(str::to_owned);
        assert_eq!(step_of(&two), None);
    }
}
