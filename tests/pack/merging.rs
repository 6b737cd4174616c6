//! The packs of a fleet's shards to one.

use crate::fixture::{
    GATE, by_another_object, doctor, passed_gates, passed_root, provenance, put, rechain, run_record,
};
use assay_gates::error::Code;
use assay_gates::pack::{Provenance, UnverifiedPack, VerifiedPack, build, merge};
use std::path::{Path, PathBuf};

const OTHER: &str = "openai-agents-kernel-policy";

struct Fleet(tempfile::TempDir);

impl Fleet {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    /// A shard's pack of the root that `fill` writes.
    fn shard(&self, name: &str, provenance: &Provenance, fill: impl Fn(&Path)) -> PathBuf {
        let root = self.path(&format!("{name}-root"));
        if !root.exists() {
            std::fs::create_dir_all(&root).unwrap();
            fill(&root);
            by_another_object(&root, &provenance.object.as_ref().unwrap().bytes);
        }
        let zip = self.path(&format!("{name}.zip"));
        build(&root, &self.path(&format!("{name}-pack")), Some(&zip), provenance).unwrap();
        zip
    }

    fn hidden_write(&self, provenance: &Provenance) -> PathBuf {
        self.shard("hidden", provenance, passed_root)
    }

    fn other(&self, provenance: &Provenance) -> PathBuf {
        self.shard("other", provenance, |root| {
            passed_gates(root, &[OTHER]);
            doctor(root, "/srv");
        })
    }

    fn merged(&self, shards: &[PathBuf]) -> Result<(VerifiedPack, PathBuf), assay_gates::error::Error> {
        let out = self.path("merged");
        let all = [GATE.to_owned(), OTHER.to_owned()];
        merge(shards, &out, Some(&self.path("merged.zip")), &all)?;
        let verified = UnverifiedPack::open(&self.path("merged.zip")).unwrap().verify();
        Ok((verified.unwrap_or_else(|findings| panic!("{findings:?}")), out))
    }
}

fn gates(pack: &VerifiedPack) -> Vec<(&str, &str)> {
    pack.manifest().gates.iter().map(|row| (row.gate.as_str(), row.status.as_str())).collect()
}

#[test]
fn shards_of_one_run_become_a_pack_that_verifies_with_every_gate_and_record() {
    let fleet = Fleet::new();
    let shards = [fleet.other(&provenance()), fleet.hidden_write(&provenance())];
    let (pack, folder) = fleet.merged(&shards).unwrap();
    assert_eq!(gates(&pack), [(OTHER, "passed"), (GATE, "passed")]);
    let manifest = pack.manifest();
    assert_eq!(manifest.source, provenance().source);
    assert_eq!(manifest.inputs.gates, "all", "both gates are all of them");
    assert_eq!(
        manifest.build_provenance.ebpf.as_ref().map(|row| row.path.as_str()),
        Some("payload/build/assay-ebpf.provenance.json")
    );
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("payload/run.json")).unwrap()).unwrap();
    assert_eq!(record["shards"].as_array().unwrap().len(), 2);
    // Each shard keeps what was found of its own host; the whole has no one host.
    for (at, place) in ["/srv", "/var/lib"].iter().enumerate() {
        let found = record["shards"][at]["doctor"]["checks"][0]["found"].as_str().unwrap();
        assert!(found.ends_with(place), "{found}");
    }
    assert!(record.get("doctor").is_none() && !folder.join("payload/doctor.json").exists());
    assert!(folder.join("payload/runs/matched_safe_read/join-result.json").exists());
    assert!(folder.join("statement.intoto.json").exists());
}

#[test]
fn one_gate_alone_is_not_all() {
    let fleet = Fleet::new();
    let (pack, _) = fleet.merged(&[fleet.other(&provenance())]).unwrap();
    assert_eq!(pack.manifest().inputs.gates, OTHER);
}

#[test]
fn shards_of_another_head_attempt_object_or_repository_are_refused_by_name() {
    type Change = (&'static str, fn(&mut Provenance));
    let changes: [Change; 6] = [
        ("the same head", |p| p.source.head_sha = "9".repeat(40)),
        ("the same attempt", |p| p.source.run_attempt = "2".into()),
        ("the same run", |p| p.source.run_id = "43".into()),
        ("the same repository", |p| p.source.repository = "owner/fork".into()),
        ("the same eBPF object", |p| p.object.as_mut().unwrap().bytes.push(0)),
        ("the same build_ebpf", |p| p.build_ebpf = "false".into()),
    ];
    for (expected, change) in changes {
        let fleet = Fleet::new();
        let mut other = provenance();
        change(&mut other);
        if expected == "the same run" {
            other.source.run_url = "https://github.com/owner/name/actions/runs/43".into();
        }
        if expected == "the same repository" {
            other.source.run_url = "https://github.com/owner/fork/actions/runs/42".into();
        }
        let error = fleet.merged(&[fleet.other(&provenance()), fleet.hidden_write(&other)]).unwrap_err();
        assert_eq!(error.code(), Code::ShardsDiffer, "{error}");
        assert!(error.message().contains(expected), "{expected}: {error}");
        assert!(!fleet.path("merged").exists());
    }
}

#[test]
fn a_gate_given_twice_is_refused() {
    let fleet = Fleet::new();
    let shard = fleet.other(&provenance());
    let error = fleet.merged(&[shard.clone(), shard]).unwrap_err();
    assert_eq!(error.code(), Code::ShardsDiffer);
    assert!(error.message().contains("in two shards"), "{error}");
}

#[test]
fn a_baseline_that_also_ran_on_its_own_is_taken_from_the_shard_that_needed_it() {
    let fleet = Fleet::new();
    let with_baseline = fleet.shard("hidden", &provenance(), |root| {
        passed_gates(root, &[OTHER, GATE]);
        doctor(root, "/var/lib");
        put(root, &format!("gates/{OTHER}/run-1/stderr.log"), "of the baseline\n");
        let record = std::fs::read_to_string(root.join("run.json")).unwrap();
        put(
            root,
            "run.json",
            record.replace("\"added\": []", &format!("\"added\": [\n    \"{OTHER}\"\n  ]")),
        );
        rechain(root);
    });
    for shards in [
        [fleet.other(&provenance()), with_baseline.clone()],
        [with_baseline.clone(), fleet.other(&provenance())],
    ] {
        let (pack, folder) = fleet.merged(&shards).unwrap();
        assert_eq!(gates(&pack), [(OTHER, "passed"), (GATE, "passed")]);
        let text =
            std::fs::read_to_string(folder.join(format!("payload/gates/{OTHER}/run-1/stderr.log"))).unwrap();
        assert_eq!(text, "of the baseline\n");
    }
}

#[test]
fn a_shard_that_was_tampered_with_is_refused() {
    let fleet = Fleet::new();
    fleet.other(&provenance());
    let folder = fleet.path("other-pack");
    put(&folder, &format!("payload/gates/{OTHER}/run-2/stdout.log"), "something else\n");
    let error = fleet.merged(&[folder]).unwrap_err();
    assert_eq!(error.code(), Code::PackInvalid, "{error}");
}

#[test]
fn a_gate_that_never_finished_stays_unfinished_in_the_merged_pack() {
    let fleet = Fleet::new();
    let broken = fleet.shard("broken", &provenance(), |root| {
        run_record(root, &["kernel-only"]);
        put(root, "gates/kernel-only/gate.log", "run 1\n");
    });
    let (pack, _) = fleet.merged(&[fleet.other(&provenance()), broken]).unwrap();
    assert_eq!(gates(&pack), [(OTHER, "passed"), ("kernel-only", "incomplete")]);
    assert_eq!(pack.claims().earned().count(), 0);
}
