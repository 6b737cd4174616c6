//! The packs of a fleet's shards to one: the same head, the same attempt, the same kernel programs, each gate once.
//!
//! Every shard is verified first. What they carry is laid out as one proof root again and built into a pack the one way
//! there is, so a merged pack is like any other; each shard's own record stands in `run.json` under `shards`.

use super::build::{ProofPack, build};
use super::manifest::{self as m, DOCTOR_PATH, GateStatus};
use super::provenance::{BuildProvenance, BuiltObject, Provenance};
use super::source::Source;
use super::verify::{UnverifiedPack, VerifiedPack};
use crate::error::{Code, Error, Exit, Result};
use crate::files::pretty_sorted;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Largest `run.json` or `statement.intoto.json`.
const RECORD_LIMIT: u64 = 16 * 1024 * 1024;

/// A verified shard.
struct Shard {
    place: PathBuf,
    pack: VerifiedPack,
    files: Source,
    record: Value,
}

impl Shard {
    fn open(place: &Path) -> Result<Self> {
        let invalid = |finding: &super::Finding| {
            Error::new(Code::PackInvalid, format!("a shard does not verify: {finding}"))
                .at(place.display())
                .hint(format!("assay-gates verify {}", place.display()))
        };
        let refused = |findings: Vec<super::Finding>| match findings.first() {
            Some(finding) => invalid(finding),
            None => Error::new(Code::Internal, "a refusal without a finding"),
        };
        let pack =
            UnverifiedPack::open(place).map_err(|finding| invalid(&finding))?.verify().map_err(refused)?;
        let files = Source::open(place).map_err(|finding| invalid(&finding))?;
        let mut shard = Self { place: place.to_owned(), pack, files, record: Value::Null };
        shard.record = json_of(&shard, "payload/run.json")?;
        if shard.files.members().contains_key(DOCTOR_PATH) {
            // Each shard has a host of its own: what was found of it stays with its record.
            shard.record["doctor"] = json_of(&shard, DOCTOR_PATH)?;
        }
        Ok(shard)
    }

    /// What must be the same in every shard, by name.
    fn common(&self) -> Result<BTreeMap<&'static str, Value>> {
        let manifest = self.pack.manifest();
        let object =
            manifest.proof_pack.subjects.first().filter(|subject| subject.role == m::Role::EbpfObject);
        let trees = serde_json::to_value(&manifest.content_provenance.path_trees)
            .map_err(|error| Error::new(Code::Internal, error.to_string()))?;
        let source = &manifest.source;
        Ok(BTreeMap::from([
            ("repository", json!(source.repository)),
            ("head", json!(source.head_sha)),
            ("ref", json!(source.r#ref)),
            ("workflow", json!(source.workflow_path)),
            ("workflow commit", json!(source.workflow_sha)),
            ("run", json!(source.run_id)),
            ("attempt", json!(source.run_attempt)),
            ("build_ebpf input", json!(manifest.inputs.build_ebpf)),
            ("eBPF object", json!(object.map(|subject| subject.sha256.to_string()))),
            ("content trees", trees),
        ]))
    }

    fn is_baseline(&self, gate: &str) -> bool {
        self.record["added"].as_array().is_some_and(|added| added.iter().any(|name| name == gate))
    }
}

/// Merges the shards at `places` into the folder `out`, and into the file `zip` when that is given.
///
/// `all` holds the ids of the gates that `all` means: a merged pack that has exactly those was a run of `all`.
///
/// # Errors
/// `PackInvalid` for a shard that does not verify; `ShardsDiffer`, naming what; what building fails with.
pub fn merge(places: &[PathBuf], out: &Path, zip: Option<&Path>, all: &[String]) -> Result<ProofPack> {
    let shards = places.iter().map(|place| Shard::open(place)).collect::<Result<Vec<_>>>()?;
    let Some(first) = shards.first() else {
        return Err(Error::new(Code::Usage, "expected at least one shard, found none"));
    };
    agree(&shards)?;
    let chosen = choose(&shards)?;
    let root = tempfile::Builder::new()
        .prefix("assay-gates-merge-")
        .tempdir()
        .map_err(|error| Error::io("cannot create a temporary folder in", &std::env::temp_dir(), error))?;
    for (index, shard) in shards.iter().enumerate() {
        lay_out(shard, index, &chosen, root.path())?;
    }
    let names: Vec<String> = ordered(&shards, &chosen);
    let selection = selection(&names, &shards, all);
    let record = record(&shards, &names, &selection)?;
    write(root.path(), "run.json", pretty_sorted(&record)?.as_bytes())?;
    build(root.path(), out, zip, &provenance(first, selection)?)
}

fn agree(shards: &[Shard]) -> Result<()> {
    let Some(first) = shards.first() else { return Ok(()) };
    let expected = first.common()?;
    for shard in &shards[1..] {
        for (name, found) in shard.common()? {
            let wanted = &expected[name];
            if *wanted != found {
                let short = |value: &Value| match value {
                    Value::String(text) => text.clone(),
                    Value::Null => "none".to_owned(),
                    _ => "other trees".to_owned(),
                };
                return Err(Error::new(
                    Code::ShardsDiffer,
                    format!(
                        "expected the same {name} in every shard: {} in {}, found {}",
                        short(wanted),
                        first.place.display(),
                        short(&found)
                    ),
                )
                .at(shard.place.display())
                .hint("merge the shards of one attempt of one run only"));
            }
        }
    }
    Ok(())
}

/// From which shard each gate is taken. A gate stands in several only when it was the baseline of another gate; then
/// that copy is taken, which the other gate's rows point to.
fn choose(shards: &[Shard]) -> Result<BTreeMap<String, usize>> {
    let mut chosen: BTreeMap<String, (usize, GateStatus)> = BTreeMap::new();
    for (index, shard) in shards.iter().enumerate() {
        for row in &shard.pack.manifest().gates {
            let Some((earlier, status)) = chosen.get(&row.gate).copied() else {
                chosen.insert(row.gate.clone(), (index, row.status));
                continue;
            };
            let (was, is) = (shards[earlier].is_baseline(&row.gate), shard.is_baseline(&row.gate));
            if was == is || status != row.status {
                return Err(Error::new(
                    Code::ShardsDiffer,
                    format!(
                        "the gate {} is in two shards: {} in {}, {} here",
                        row.gate,
                        status.as_str(),
                        shards[earlier].place.display(),
                        row.status.as_str()
                    ),
                )
                .at(shard.place.display())
                .hint("give each gate's shard once"));
            }
            if is {
                chosen.insert(row.gate.clone(), (index, status));
            }
        }
    }
    Ok(chosen.into_iter().map(|(gate, (index, _))| (gate, index)).collect())
}

/// Gates in the order in which the shards name them.
fn ordered(shards: &[Shard], chosen: &BTreeMap<String, usize>) -> Vec<String> {
    let mut names = Vec::new();
    for row in shards.iter().flat_map(|shard| &shard.pack.manifest().gates) {
        if chosen.contains_key(&row.gate) && !names.contains(&row.gate) {
            names.push(row.gate.clone());
        }
    }
    names
}

/// `all` when it is all; else the gates that were asked for, without mere baselines.
fn selection(names: &[String], shards: &[Shard], all: &[String]) -> String {
    let same = names.len() == all.len() && all.iter().all(|gate| names.contains(gate));
    if same {
        return "all".to_owned();
    }
    let asked = |gate: &&String| {
        shards.iter().any(|shard| {
            shard.pack.manifest().gates.iter().any(|row| row.gate == **gate) && !shard.is_baseline(gate)
        })
    };
    names.iter().filter(asked).cloned().collect::<Vec<_>>().join(",")
}

/// Copies what this shard contributes. The rows of `runs/` go with the shard, whose gates they are about.
fn lay_out(shard: &Shard, index: usize, chosen: &BTreeMap<String, usize>, root: &Path) -> Result<()> {
    let broken = |finding: super::Finding| {
        Error::new(Code::PackChanged, finding.to_string()).at(shard.place.display())
    };
    for name in shard.files.members().keys() {
        let Some(below) = name.strip_prefix("payload/") else { continue };
        let mut parts = below.split('/');
        let wanted = match parts.next() {
            Some("gates") => parts.next().is_some_and(|gate| chosen.get(gate) == Some(&index)),
            Some("runs") => !root.join(below).exists(),
            _ => false,
        };
        if wanted {
            let mut reader = shard.files.reader(name).map_err(broken)?;
            let place = root.join(below);
            let failed = |error| Error::io("cannot write", &place, error);
            if let Some(folder) = place.parent() {
                std::fs::create_dir_all(folder).map_err(failed)?;
            }
            let mut file = std::fs::File::create(&place).map_err(failed)?;
            std::io::copy(&mut reader, &mut file).map_err(failed)?;
        }
    }
    if shard.files.members().contains_key("payload/events.jsonl") {
        let place = root.join("events.jsonl");
        let failed = |error| Error::io("cannot append to", &place, error);
        let mut reader = shard.files.reader("payload/events.jsonl").map_err(broken)?;
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&place).map_err(failed)?;
        std::io::copy(&mut reader, &mut file).map_err(failed)?;
    }
    for row in &shard.pack.manifest().gates {
        if chosen.get(&row.gate) == Some(&index) && row.status != GateStatus::Missing {
            write(
                root,
                &format!("gates/{}/status.txt", row.gate),
                format!("{}\n", row.status.as_str()).as_bytes(),
            )?;
        }
    }
    Ok(())
}

fn write(root: &Path, below: &str, bytes: &[u8]) -> Result<()> {
    let place = root.join(below);
    let failed = |error| Error::io("cannot write", &place, error);
    if let Some(folder) = place.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    std::fs::File::create(&place).and_then(|mut file| file.write_all(bytes)).map_err(failed)
}

/// One record: the first shard's, with what the others change, and all of them as they were.
fn record(shards: &[Shard], names: &[String], selection: &str) -> Result<Value> {
    let times = |key: &str| -> Vec<String> {
        shards.iter().filter_map(|shard| Some(shard.record[key].as_str()?.to_owned())).collect()
    };
    let exit = Exit::worst(shards.iter().filter_map(|shard| {
        let code = shard.record["exit"].as_u64()?;
        Exit::BY_PRECEDENCE.into_iter().find(|exit| u64::from(exit.code()) == code)
    }));
    let ended = shards.iter().all(|shard| shard.record["exit"].is_u64());
    let mut record = shards.first().map(|shard| shard.record.clone()).unwrap_or_default();
    let Value::Object(fields) = &mut record else {
        return Err(Error::new(Code::PackInvalid, "payload/run.json of a shard is no object"));
    };
    let added: Vec<&String> = names
        .iter()
        .filter(|gate| {
            let with: Vec<&Shard> = shards
                .iter()
                .filter(|shard| shard.pack.manifest().gates.iter().any(|row| row.gate == **gate))
                .collect();
            with.iter().all(|shard| shard.is_baseline(gate))
        })
        .collect();
    fields.remove("doctor");
    fields.insert("gates".to_owned(), json!(names));
    fields.insert("added".to_owned(), json!(added));
    fields.insert("selection".to_owned(), json!(selection));
    fields.insert("started_at".to_owned(), json!(times("started_at").into_iter().min()));
    fields.insert("finished_at".to_owned(), json!(times("finished_at").into_iter().max().filter(|_| ended)));
    fields.insert("exit".to_owned(), if ended { json!(exit.code()) } else { Value::Null });
    fields.insert("shards".to_owned(), shards.iter().map(|shard| shard.record.clone()).collect());
    Ok(record)
}

/// What the first shard says of its origin, which is what all of them say.
fn provenance(shard: &Shard, selection: String) -> Result<Provenance> {
    let manifest = shard.pack.manifest();
    let broken = |finding: super::Finding| {
        Error::new(Code::PackChanged, finding.to_string()).at(shard.place.display())
    };
    let statement: Value = json_of(shard, m::STATEMENT_PATH)?;
    let fact = |name: &str| {
        let found =
            statement.pointer(&format!("/predicate/buildDefinition/internalParameters/github/{name}"));
        found.and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let object = match &manifest.build_provenance.ebpf {
        None => None,
        Some(_) => {
            let facts: BuildProvenance = json_of(shard, m::BUILD_PROVENANCE_PATH)?;
            Some(BuiltObject {
                bytes: shard.files.read(m::OBJECT_PATH, RECORD_LIMIT).map_err(broken)?,
                compiler: facts.build.compiler,
                flags: facts.build.flags,
                sources: facts.build.sources,
            })
        }
    };
    Ok(Provenance {
        source: manifest.source.clone(),
        event_name: fact("event_name"),
        runner_environment: fact("runner_environment"),
        input_gates: Some(selection),
        build_ebpf: manifest.inputs.build_ebpf.clone(),
        path_trees: manifest.content_provenance.path_trees.clone(),
        object,
        source_date_epoch: None,
    })
}

fn json_of<T: DeserializeOwned>(shard: &Shard, member: &str) -> Result<T> {
    let wrong = |found: String| Error::new(Code::PackInvalid, found).at(shard.place.join(member).display());
    let bytes = shard.files.read(member, RECORD_LIMIT).map_err(|finding| wrong(finding.to_string()))?;
    serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))
}
